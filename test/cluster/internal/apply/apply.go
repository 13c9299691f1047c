// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package apply puts a few objects into the API server without discovery, which
// is slow on a server that has just started.
package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
)

// resources are the kinds that the package knows.
func resources() map[string]string {
	return map[string]string{
		"ServiceAccount": "serviceaccounts", "ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings",
		"Service": "services", "Deployment": "deployments", "ConfigMap": "configmaps",
	}
}

// YAML applies every document of the text, server-side.
func YAML(ctx context.Context, client dynamic.Interface, text []byte) error {
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var u unstructured.Unstructured
		err := d.Decode(&u)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("parse object: %w", err)
		}
		if err := object(ctx, client, &u); err != nil {
			return err
		}
	}
}

func object(ctx context.Context, client dynamic.Interface, u *unstructured.Unstructured) error {
	name, ok := resources()[u.GetKind()]
	if !ok {
		return fmt.Errorf("apply %s: kind not known", u.GetKind())
	}
	gv, err := schema.ParseGroupVersion(u.GetAPIVersion())
	if err != nil {
		return fmt.Errorf("apply %s: %w", u.GetKind(), err)
	}
	var r dynamic.ResourceInterface = client.Resource(gv.WithResource(name))
	if ns := u.GetNamespace(); ns != "" {
		r = client.Resource(gv.WithResource(name)).Namespace(ns)
	}
	if _, err := r.Apply(ctx, u.GetName(), u, v1.ApplyOptions{FieldManager: "devcluster", Force: true}); err != nil {
		return fmt.Errorf("apply %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return nil
}
