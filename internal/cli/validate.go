// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/internal/validate"
)

// ValidateOptions is `isthmusctl validate`: the validation webhook's rules, before
// the objects are applied.
type ValidateOptions struct {
	tool Tool
	// Files to read, "-" for the input.
	Files []string
	// Namespace of objects that name none.
	Namespace string
	// RootNamespace is exempt from the rules for tenants.
	RootNamespace string
}

func validateCommand(t Tool) *cobra.Command {
	o := &ValidateOptions{tool: t}
	c := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "check manifests of Istio's kinds",
		Long: "validate applies the rules of the validation webhook to manifests, without a cluster.\n" +
			"Kinds without rules are passed over. It fails if an object would be refused.",
		Args: cobra.NoArgs,
		RunE: run(o),
	}
	f := c.Flags()
	f.StringSliceVarP(&o.Files, "filename", "f", nil, "manifests to read; - for the input")
	f.StringVarP(&o.Namespace, "namespace", "n", "default", "namespace of objects that name none")
	f.StringVar(&o.RootNamespace, "control-plane-namespace", defaultNamespace, "namespace where the rules for tenants do not hold")
	return c
}

// Complete has nothing to fill in.
func (o *ValidateOptions) Complete(context.Context, []string) error { return nil }

// Validate wants something to read.
func (o *ValidateOptions) Validate() error {
	if len(o.Files) == 0 {
		return errNoFiles
	}
	return nil
}

// Run prints every problem and fails if one is a refusal.
func (o *ValidateOptions) Run(context.Context) error {
	list, err := manifests(o.tool, o.Files)
	if err != nil {
		return err
	}
	checked, bad := 0, 0
	for _, u := range list {
		if !slices.Contains(validate.Kinds(), u.GetKind()) || !ofIstio(u) {
			continue
		}
		checked++
		report, err := o.check(u)
		if err != nil {
			return fmt.Errorf("%s: %w", describe(u), err)
		}
		if len(report.Refused) > 0 {
			bad++
		}
		if err := o.print(u, report); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d objects would be refused", bad, checked)
	}
	_, err = fmt.Fprintf(o.tool.Streams.Out, "%d objects checked, none would be refused\n", checked)
	return err
}

func ofIstio(u *unstructured.Unstructured) bool {
	group := u.GroupVersionKind().Group
	return group == "networking.istio.io" || group == "security.istio.io"
}

func (o *ValidateOptions) check(u *unstructured.Unstructured) (validate.Report, error) {
	spec, err := json.Marshal(u.Object["spec"])
	if err != nil {
		return validate.Report{}, err
	}
	ns := u.GetNamespace()
	if ns == "" {
		ns = o.Namespace
	}
	return validate.Check(
		validate.Object{Kind: u.GetKind(), Namespace: ns, Spec: spec},
		validate.Rules{RootNamespace: o.RootNamespace},
	), nil
}

func (o *ValidateOptions) print(u *unstructured.Unstructured, r validate.Report) error {
	for _, p := range r.Refused {
		if _, err := fmt.Fprintf(o.tool.Streams.Out, "%s: error: %s\n", describe(u), p); err != nil {
			return err
		}
	}
	for _, p := range r.Warned {
		if _, err := fmt.Fprintf(o.tool.Streams.Out, "%s: warning: %s\n", describe(u), p); err != nil {
			return err
		}
	}
	return nil
}
