// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command generate, run by "go generate ./charts/...", brings what is derived from
// the charts up to date: the CRDs into the operator's chart, and its roles and
// workload out of it into config, for kustomize.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/charts"
	"github.com/isthmus-mesh/isthmus/internal/render"
)

// Directories, from charts.
const (
	crdSource = "../config/crd"
	crdTarget = "isthmus/files/crd"
	rbac      = "../config/rbac/rbac.yaml"
	manager   = "../config/manager/manager.yaml"
)

const header = "# Generated from charts/isthmus by \"make generate\"; do not edit.\n"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "generate from charts:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := copyCRDs(); err != nil {
		return err
	}
	objects, err := render.Chart(os.DirFS("."), charts.Operator, render.Release{Name: "isthmus", Namespace: "isthmus-operator"},
		map[string]any{"createNamespace": true, "crds": map[string]any{"install": false}})
	if err != nil {
		return err
	}
	files := map[string][]*unstructured.Unstructured{}
	for _, o := range objects {
		switch o.GetKind() {
		case "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding":
			files[rbac] = append(files[rbac], o)
		default:
			files[manager] = append(files[manager], o)
		}
	}
	for name, objects := range files {
		text, err := render.Manifest(objects)
		if err != nil {
			return err
		}
		if err := os.WriteFile(name, append([]byte(header), text...), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func copyCRDs() error {
	found, err := filepath.Glob(filepath.Join(crdSource, "isthmus.dev_*.yaml"))
	if err != nil {
		return err
	}
	for _, f := range found {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(crdTarget, filepath.Base(f)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
