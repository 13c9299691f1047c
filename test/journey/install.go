// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package journey

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/test/kube"
)

// TopologyKind is the kind of the one object that a person edits.
var TopologyKind = schema.GroupVersionKind{Group: "isthmus.dev", Version: "v1alpha1", Kind: "MeshTopology"}

// Options say which cluster to use.
type Options struct {
	// Cluster is auto, embedded, kind or current. Auto takes kind where a Docker
	// engine answers, else the embedded cluster.
	Cluster string
	// Root of the repository.
	Root string
	// Name and Index of the embedded cluster, so that two can run side by side;
	// empty and 0 are the defaults of devcluster.
	Name  string
	Index int
	// Flags are more flags of devcluster up, as of the kind of network.
	Flags []string
	// Progress is told each step before it begins.
	Progress func(step string)
}

// Down takes down what Up brings up with these options, as far as it got.
func (o Options) Down() error {
	w, err := o.world(context.Background())
	if err != nil {
		return err
	}
	return w.down()
}

// Start brings a cluster up, installs the operator and applies a MeshTopology
// of IngressOnly. The function that it returns takes down what Start brought up;
// it is never nil.
func Start(ctx context.Context, o Options) (*Env, func() error, error) {
	e, down, err := Up(ctx, o)
	if err != nil {
		return nil, down, err
	}
	for _, step := range []func(context.Context) error{
		e.InstallOperator,
		func(ctx context.Context) error { return e.InstallMesh(ctx, IngressOnly) },
		e.StartCast,
	} {
		if err := step(ctx); err != nil {
			return nil, down, err
		}
	}
	return e, down, nil
}

// Up brings a cluster up, and nothing in it but the outside where that is made of
// pods. The function that it returns takes it down; it is never nil.
func Up(ctx context.Context, o Options) (*Env, func() error, error) {
	world, err := o.world(ctx)
	if err != nil {
		return nil, func() error { return nil }, err
	}
	o.Progress("starting the cluster (" + world.name() + ")")
	kubeconfig, err := world.up(ctx)
	if err != nil {
		return nil, world.down, err
	}
	k, err := kube.New(kubeconfig)
	if err != nil {
		return nil, world.down, err
	}
	e := &Env{Kube: k, Namespace: "isthmus-system", root: o.Root, progress: o.Progress}
	e.Outside, err = world.outside(ctx, e)
	return e, world.down, err
}

// OperatorManifest is what installs the operator.
func (e *Env) OperatorManifest(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(e.root, "bin/operator"), "manifests").Output()
	if err != nil {
		return "", fmt.Errorf("operator manifests: %w", err)
	}
	return string(out), nil
}

// InstallOperator installs the operator and waits for it.
func (e *Env) InstallOperator(ctx context.Context) error {
	e.progress("installing the operator")
	manifest, err := e.OperatorManifest(ctx)
	if err != nil {
		return err
	}
	if err := e.Kube.Apply(ctx, manifest); err != nil {
		return err
	}
	return e.Kube.PodsReady(ctx, OperatorNamespace, 3*time.Minute)
}

// OperatorNamespace is where the operator runs.
const OperatorNamespace = "isthmus-operator"

// InstallMesh applies a MeshTopology and waits until it is ready.
func (e *Env) InstallMesh(ctx context.Context, topology string) error {
	e.progress("applying a MeshTopology: " + topology)
	if err := e.Kube.Apply(ctx, e.Outside.Scene().Topology(topology)); err != nil {
		return err
	}
	return e.awaitTopology(ctx, topology)
}

// StartCast starts everybody who takes part and waits for them.
func (e *Env) StartCast(ctx context.Context) error {
	e.progress("starting the services and those who call them")
	if err := e.Kube.Apply(ctx, e.Outside.Scene().Manifest()); err != nil {
		return err
	}
	for _, ns := range []string{Shop, Strangers} {
		if err := e.Kube.PodsReady(ctx, ns, 3*time.Minute); err != nil {
			return err
		}
	}
	return nil
}

// SwitchTo edits the one field and waits until the operator says that it holds.
func (e *Env) SwitchTo(ctx context.Context, topology string) error {
	ri, err := e.Kube.Resource(ctx, TopologyKind, "")
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"topology": topology}})
	if err != nil {
		return err
	}
	if _, err := ri.Patch(ctx, "default", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("edit spec.topology: %w", err)
	}
	return e.awaitTopology(ctx, topology)
}

// awaitTopology waits until the object says Ready for this generation and this
// topology, and notes the ingress gateway's address.
func (e *Env) awaitTopology(ctx context.Context, topology string) error {
	return e.Kube.Await(ctx, TopologyKind, "", "default", 3*time.Minute, func(o *unstructured.Unstructured) (bool, string) {
		active, _, _ := unstructured.NestedString(o.Object, "status", "topology")
		seen, _, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
		ready, reason, message := kube.Condition(o, "Ready")
		e.Ingress = gatewayAddress(o, "ingress")
		done := active == topology && seen == o.GetGeneration() && ready == "True" && e.Ingress != ""
		return done, fmt.Sprintf("active %s, Ready=%s %s: %s, ingress address %q", active, ready, reason, message, e.Ingress)
	})
}

// gatewayAddress reads the first address of the named gateway out of status.
func gatewayAddress(o *unstructured.Unstructured, name string) string {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "gateways")
	for _, g := range list {
		m, ok := g.(map[string]any)
		if !ok || m["name"] != name {
			continue
		}
		if all, _, _ := unstructured.NestedStringSlice(m, "addresses"); len(all) > 0 {
			return all[0]
		}
	}
	return ""
}

// world is a place where a cluster comes from.
type world interface {
	name() string
	// up returns the path of the kubeconfig; "" is the user's own.
	up(context.Context) (string, error)
	outside(context.Context, *Env) (Outside, error)
	down() error
}

func (o Options) world(ctx context.Context) (world, error) {
	kind := o.Cluster
	if kind == "auto" {
		kind = "embedded"
		if exec.CommandContext(ctx, "docker", "info").Run() == nil && exec.CommandContext(ctx, "kind", "version").Run() == nil {
			kind = "kind"
		}
	}
	switch kind {
	case "embedded":
		return &embeddedWorld{newEmbedded(o)}, nil
	case "kind":
		return &kindWorld{root: o.Root}, nil
	case "current":
		return currentWorld{}, nil
	}
	return nil, fmt.Errorf("there is no cluster %q: want auto, embedded, kind or current", o.Cluster)
}

// imageArchives lists what "make images" wrote.
func imageArchives(root string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(root, "bin/images/*.tar"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no images in %s/bin/images: run make images", root)
	}
	return files, err
}

// embeddedWorld is the project's own single-node cluster.
type embeddedWorld struct{ embedded }

func (w *embeddedWorld) name() string { return "embedded" }

func (w *embeddedWorld) up(ctx context.Context) (string, error) {
	up := append([]string{"up", "--index", strconv.Itoa(w.index), "--kubeconfig", w.kubeconfig()}, w.flags...)
	if _, err := w.devcluster(ctx, up...); err != nil {
		return "", err
	}
	files, err := imageArchives(w.root)
	if err != nil {
		return "", err
	}
	if _, err := w.devcluster(ctx, append([]string{"load"}, files...)...); err != nil {
		return "", err
	}
	return w.kubeconfig(), nil
}

func (w *embeddedWorld) kubeconfig() string {
	if w.cluster == defaultCluster {
		return filepath.Join(w.root, ".cluster/kubeconfig")
	}
	return filepath.Join(w.root, ".cluster", w.cluster+".kubeconfig")
}

func (w *embeddedWorld) outside(context.Context, *Env) (Outside, error) { return w.embedded, nil }

func (w *embeddedWorld) down() error {
	_, err := w.devcluster(context.Background(), "down")
	return err
}

// kindWorld is a cluster made by kind, on a machine with a Docker engine.
type kindWorld struct{ root string }

const kindName = "isthmus-demo"

func (w *kindWorld) name() string { return "kind" }

func (w *kindWorld) kubeconfig() string { return filepath.Join(w.root, ".cluster/kind.kubeconfig") }

func (w *kindWorld) up(ctx context.Context) (string, error) {
	if err := os.MkdirAll(filepath.Dir(w.kubeconfig()), 0o755); err != nil {
		return "", err
	}
	if err := loudly(ctx, "kind", "create", "cluster", "--name", kindName, "--kubeconfig", w.kubeconfig(), "--wait", "2m"); err != nil {
		return "", err
	}
	files, err := imageArchives(w.root)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if err := loudly(ctx, "kind", "load", "image-archive", f, "--name", kindName); err != nil {
			return "", err
		}
	}
	return w.kubeconfig(), nil
}

func (w *kindWorld) outside(ctx context.Context, e *Env) (Outside, error) { return startPods(ctx, e) }

func (w *kindWorld) down() error {
	return loudly(context.Background(), "kind", "delete", "cluster", "--name", kindName)
}

// loudly runs a command whose own progress the person should see.
func loudly(ctx context.Context, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return nil
}

// currentWorld is the cluster of the current kubeconfig; its nodes must be able
// to get the images. Nothing is taken down but what the journey applied.
type currentWorld struct{}

func (currentWorld) name() string                                         { return "current kubeconfig" }
func (currentWorld) up(context.Context) (string, error)                   { return "", nil }
func (currentWorld) outside(ctx context.Context, e *Env) (Outside, error) { return startPods(ctx, e) }
func (currentWorld) down() error                                          { return nil }
