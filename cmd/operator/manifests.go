// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/charts"
	"github.com/isthmus-mesh/isthmus/internal/render"
)

// manifests prints the operator's chart rendered with its default values, or
// others: what "helm template" would print, and the namespace.
func manifests() *cobra.Command {
	var namespace, valuesFile, registry, tag, pullPolicy, istioCRDs string
	c := &cobra.Command{
		Use:   "manifests",
		Short: "print what installs the operator, for kubectl apply --server-side -f -",
		Args:  cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&namespace, "namespace", "isthmus-operator", "namespace to install into")
	f.StringVar(&valuesFile, "values", "", "file of values of the chart")
	f.StringVar(&registry, "image-registry", "", "registry and path of images")
	f.StringVar(&tag, "image-tag", "", "tag of the operator's image")
	f.StringVar(&pullPolicy, "pull-policy", "", "when to pull the operator's image: Always, IfNotPresent or Never")
	f.StringVar(&istioCRDs, "istio-crds", "", "what to do with Istio's CRDs: IfAbsent, Manage or Never")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		values := map[string]any{"createNamespace": true}
		if valuesFile != "" {
			text, err := os.ReadFile(valuesFile)
			if err != nil {
				return err
			}
			if err := yaml.Unmarshal(text, &values); err != nil {
				return fmt.Errorf("read %s: %w", valuesFile, err)
			}
		}
		set(values, "images", "registry", registry)
		set(values, "images", "tag", tag)
		set(values, "images", "pullPolicy", pullPolicy)
		set(values, "crds", "istio", istioCRDs)
		objects, err := render.Chart(charts.FS, charts.Operator, render.Release{Name: "isthmus", Namespace: namespace}, values)
		if err != nil {
			return err
		}
		text, err := render.Manifest(objects)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	return c
}

// set puts a flag over a value of the chart, if it was given.
func set(values map[string]any, group, key, value string) {
	if value == "" {
		return
	}
	in, ok := values[group].(map[string]any)
	if !ok {
		in = map[string]any{}
		values[group] = in
	}
	in[key] = value
}
