// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/spf13/cobra"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/inject"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// InjectOptions is `isthmusctl inject`: what the webhook does, by hand.
type InjectOptions struct {
	tool Tool
	kube *connection
	// Files to read, "-" for the input.
	Files []string
	// Topology whose proxies the pods get, and the Namespace of its control plane.
	Topology, Namespace string
	// Config replaces what the cluster says: a file with the ConfigMap of a topology.
	Config string

	injector *inject.Injector
}

func injectCommand(t Tool, k *connection) *cobra.Command {
	o := &InjectOptions{tool: t, kube: k}
	c := &cobra.Command{
		Use:   "inject -f FILE",
		Short: "give the pods in manifests their proxy",
		Long: "inject reads manifests and prints them with the proxy in every pod and pod template,\n" +
			"as the webhook would add it. Pods that opt out, or cannot have one, stay as they are.\n" +
			"The configuration is the topology's in the cluster, or that of --config.",
		Example: "  isthmusctl inject -f app.yaml | kubectl apply -f -",
		Args:    cobra.NoArgs,
		RunE:    run(o),
	}
	f := c.Flags()
	f.StringSliceVarP(&o.Files, "filename", "f", nil, "manifests to read; - for the input")
	f.StringVar(&o.Topology, "topology", defaultTopology, "name of the MeshTopology")
	f.StringVar(&o.Namespace, "control-plane-namespace", defaultNamespace, "namespace of the control plane")
	f.StringVar(&o.Config, "config", "", "file with ConfigMap isthmus-NAME, instead of asking the cluster")
	return c
}

// Complete reads the configuration.
func (o *InjectOptions) Complete(ctx context.Context, _ []string) error {
	if len(o.Files) == 0 {
		return nil // Validate says so
	}
	data, err := o.configuration(ctx)
	if err != nil {
		return err
	}
	cfg, err := parseConfiguration(data)
	if err != nil {
		return fmt.Errorf("ConfigMap %s: %w", topology.ConfigMapName(o.Topology), err)
	}
	// By hand means wanted: which namespaces are members is the webhook's business.
	cfg.Members = nil
	o.injector, err = inject.New(cfg)
	return err
}

func (o *InjectOptions) configuration(ctx context.Context) (map[string]string, error) {
	name := topology.ConfigMapName(o.Topology)
	if o.Config == "" {
		c, err := o.kube.cluster()
		if err != nil {
			return nil, err
		}
		return c.ConfigMap(ctx, o.Namespace, name)
	}
	b, err := o.tool.ReadFile(o.Config)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var m corev1.ConfigMap
	if err := yaml.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", o.Config, err)
	}
	return m.Data, nil
}

func parseConfiguration(data map[string]string) (inject.Config, error) {
	t, err := topology.Parse(data[topology.ConfigKey])
	if err != nil {
		return inject.Config{}, err
	}
	mesh := &meshconfig.MeshConfig{}
	if text := data[topology.MeshKey]; text != "" {
		if err := yaml.Unmarshal([]byte(text), mesh); err != nil {
			return inject.Config{}, fmt.Errorf("parse mesh config: %w", err)
		}
	}
	return inject.FromTopology(t, mesh), nil
}

// Validate wants something to read.
func (o *InjectOptions) Validate() error {
	if len(o.Files) == 0 {
		return errNoFiles
	}
	return nil
}

// Run prints the manifests with proxies.
func (o *InjectOptions) Run(context.Context) error {
	list, err := manifests(o.tool, o.Files)
	if err != nil {
		return err
	}
	for _, u := range list {
		if err := o.object(u); err != nil {
			return fmt.Errorf("%s: %w", describe(u), err)
		}
	}
	return writeObjects(o.tool.Streams.Out, list)
}

// templatePath is where a kind keeps its pod: nil for a Pod itself, false for kinds
// that have none.
func templatePath(kind string) ([]string, bool) {
	switch kind {
	case "Pod":
		return nil, true
	case "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController", "Rollout":
		return []string{"spec", "template"}, true
	case "CronJob":
		return []string{"spec", "jobTemplate", "spec", "template"}, true
	case "PodTemplate":
		return []string{"template"}, true
	}
	return nil, false
}

// object injects the pod of one object in place.
func (o *InjectOptions) object(u *unstructured.Unstructured) error {
	path, ok := templatePath(u.GetKind())
	if !ok {
		return nil
	}
	tree := u.Object
	if path != nil {
		template, found, err := unstructured.NestedMap(u.Object, path...)
		if err != nil || !found {
			return err
		}
		tree = template
	}
	pod := &corev1.Pod{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(tree, pod); err != nil {
		return fmt.Errorf("read pod: %w", err)
	}
	patch, err := o.pod(u, pod, path != nil)
	if err != nil || patch == nil {
		return err
	}
	if tree, err = apply(patch, tree); err != nil {
		return err
	}
	if path == nil {
		u.Object = tree
		return nil
	}
	return unstructured.SetNestedMap(u.Object, tree, path...)
}

// apply patches the manifest itself, so that it stays as its author wrote it
// wherever injection changes nothing.
func apply(patch []byte, tree map[string]any) (map[string]any, error) {
	if _, ok := tree["metadata"].(map[string]any); !ok {
		tree["metadata"] = map[string]any{}
	}
	raw, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("write pod: %w", err)
	}
	p, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, fmt.Errorf("read patch: %w", err)
	}
	if raw, err = p.Apply(raw); err != nil {
		return nil, fmt.Errorf("apply patch: %w", err)
	}
	out := map[string]any{}
	return out, json.Unmarshal(raw, &out)
}

// pod injects a pod, or a template as a pod of its workload, and returns what to
// change; nil if the pod is left alone.
func (o *InjectOptions) pod(u *unstructured.Unstructured, pod *corev1.Pod, template bool) ([]byte, error) {
	if template {
		pod.GenerateName = u.GetName() + "-"
		pod.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: u.GetAPIVersion(), Kind: u.GetKind(), Name: u.GetName(), Controller: new(true),
		}}
	}
	ns := u.GetNamespace()
	if ns == "" {
		ns = "default"
	}
	res, err := o.injector.Inject(inject.Request{
		Pod:       pod,
		Namespace: inject.Namespace{Name: ns, Labels: map[string]string{inject.LabelRev: o.injector.Revision()}},
	})
	if err != nil {
		return nil, err
	}
	if res.Pod == nil {
		_, err := fmt.Fprintf(o.tool.Streams.Err, "%s is left as it is: %s\n", describe(u), res.Decision.Reason)
		return nil, err
	}
	for _, w := range res.Warnings {
		if _, err := fmt.Fprintf(o.tool.Streams.Err, "%s: warning: %s\n", describe(u), w); err != nil {
			return nil, err
		}
	}
	return inject.Patch(pod, res.Pod)
}
