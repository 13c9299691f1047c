// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package crds installs the CRDs of others, which a mesh needs and may find
// already there: Istio's. What it may touch is a Mode. Its own CRDs come with the
// operator's chart.
package crds

import (
	"context"
	_ "embed" // for Istio's CRDs
	"errors"
	"fmt"
	"slices"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/internal/render"
)

//go:generate go run ./generate

// istio is made by "make generate-crds"; without it this package does not compile.
//
//go:embed zz_istio.yaml
var istio []byte

// Mode says which CRDs of others the operator may touch.
type Mode string

// The three modes.
const (
	// IfAbsent installs groups that are missing whole.
	IfAbsent Mode = "IfAbsent"
	// Manage also updates the CRDs that the operator installed.
	Manage Mode = "Manage"
	// Never leaves all of them alone.
	Never Mode = "Never"
)

// ParseMode reads a Mode.
func ParseMode(s string) (Mode, error) {
	if m := Mode(s); slices.Contains([]Mode{IfAbsent, Manage, Never}, m) {
		return m, nil
	}
	return "", fmt.Errorf("%q is none of IfAbsent, Manage, Never", s)
}

const (
	// labelOwned marks CRDs that the operator installed.
	labelOwned = "isthmus.dev/crds"
	// annotationVersion is the version of istio.io/api that a CRD came from.
	annotationVersion = "isthmus.dev/crds-version"
	manager           = "isthmus-operator-crds"
)

// Required names Istio's CRDs that isthmusd reads.
func Required() []string {
	return []string{
		"destinationrules.networking.istio.io", "gateways.networking.istio.io", "serviceentries.networking.istio.io",
		"sidecars.networking.istio.io", "virtualservices.networking.istio.io", "workloadentries.networking.istio.io",
		"peerauthentications.security.istio.io",
	}
}

// Ensure brings Istio's CRDs to what the mode allows. It writes nothing when
// there is nothing to do.
func Ensure(ctx context.Context, c client.Client, mode Mode) error {
	if mode == Never {
		return nil
	}
	desired, version, err := Istio()
	if err != nil {
		return err
	}
	var live apiextensions.CustomResourceDefinitionList
	if err := c.List(ctx, &live); err != nil {
		return fmt.Errorf("list CRDs: %w", err)
	}
	var failures []error
	for _, d := range choose(mode, version, desired, live.Items) {
		mark(d, version)
		if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(d), client.FieldOwner(manager), client.ForceOwnership); err != nil {
			failures = append(failures, fmt.Errorf("apply CRD %s: %w", d.GetName(), err))
		}
	}
	return errors.Join(failures...)
}

// Istio reads the embedded CRDs and the version of the module they came from.
func Istio() ([]*unstructured.Unstructured, string, error) {
	first, _, _ := strings.Cut(string(istio), "\n")
	_, version, ok := strings.Cut(strings.TrimPrefix(first, "# "), " ")
	objects, err := render.Parse(istio)
	if err == nil && (!ok || len(objects) == 0) {
		err = errors.New("none embedded: run make generate-crds and build again")
	}
	if err != nil {
		return nil, "", fmt.Errorf("CRDs of Istio: %w", err)
	}
	return objects, version, nil
}

// choose picks the CRDs to apply: those that are absent, in groups that nobody
// else has begun, and, in mode Manage, ours that are older and whose stored
// versions would still be there.
func choose(mode Mode, version string, desired []*unstructured.Unstructured, live []apiextensions.CustomResourceDefinition) []*unstructured.Unstructured {
	byName := map[string]*apiextensions.CustomResourceDefinition{}
	foreign := map[string]bool{}
	for i := range live {
		l := &live[i]
		byName[l.Name] = l
		if l.Labels[labelOwned] == "" {
			foreign[l.Spec.Group] = true
		}
	}
	var out []*unstructured.Unstructured
	for _, d := range desired {
		group, _, _ := unstructured.NestedString(d.Object, "spec", "group")
		l := byName[d.GetName()]
		switch {
		case l == nil && !foreign[group]:
			out = append(out, d)
		case l != nil && mode == Manage && l.Labels[labelOwned] != "" && older(l.Annotations[annotationVersion], version) && keepsStored(d, l):
			out = append(out, d)
		}
	}
	return out
}

// older compares versions like v1.31.1; what is not one is older than what is.
func older(a, b string) bool {
	pa, pb := numbers(a), numbers(b)
	return slices.Compare(pa[:], pb[:]) < 0
}

func numbers(v string) (n [3]int) {
	if _, err := fmt.Sscanf(v, "v%d.%d.%d", &n[0], &n[1], &n[2]); err != nil {
		return [3]int{}
	}
	return n
}

func keepsStored(d *unstructured.Unstructured, live *apiextensions.CustomResourceDefinition) bool {
	versions, _, _ := unstructured.NestedSlice(d.Object, "spec", "versions")
	for _, stored := range live.Status.StoredVersions {
		if !slices.ContainsFunc(versions, func(v any) bool {
			m, _ := v.(map[string]any)
			return m["name"] == stored
		}) {
			return false
		}
	}
	return true
}

// mark labels a CRD as ours. Labels of the file it came from are dropped: they
// speak of a release of another chart.
func mark(d *unstructured.Unstructured, version string) {
	d.SetLabels(map[string]string{labelOwned: "istio"})
	d.SetAnnotations(map[string]string{annotationVersion: version, "helm.sh/resource-policy": "keep"})
	unstructured.RemoveNestedField(d.Object, "status")
}
