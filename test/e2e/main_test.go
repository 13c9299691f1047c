// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests what a user relies on, in a real cluster with real Envoys: the
// journeys of each topology, repair of what was edited or deleted, those who come
// later, autoscaling, and that removal leaves nothing.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/isthmus-mesh/isthmus/test/journey"
	"github.com/isthmus-mesh/isthmus/test/kube"
)

// env is the cluster that all tests share: topologies follow one another, as they
// do for a user.
var env *journey.Env

// past is what the cluster held before the operator was installed, and before the
// topology was.
var past struct{ bare, installed kube.Inventory }

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	root, err := filepath.Abs("../..")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if os.Geteuid() != 0 && os.Getenv("CLUSTER") == "" {
		fmt.Println("SKIP: the embedded cluster needs root; set CLUSTER=kind or CLUSTER=current for another")
		return 0
	}
	cluster := os.Getenv("CLUSTER")
	if cluster == "" {
		cluster = "embedded"
	}
	o := journey.Options{Cluster: cluster, Root: root, Name: "e2e", Index: 4, Progress: func(s string) { fmt.Println("---", s) }}
	down := journey.NewCleanup().Add(o.Down)
	defer func() {
		if err := down(); err != nil {
			fmt.Fprintln(os.Stderr, "take down:", err)
		}
	}()
	ctx := context.Background()
	e, _, err := journey.Up(ctx, o)
	if err == nil {
		err = install(ctx, e)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "start:", err)
		return 1
	}
	env = e
	return m.Run()
}

// install installs everything, and takes stock of the cluster on the way. The
// namespaces of the cast come first, as a user's are there before a mesh is.
func install(ctx context.Context, e *journey.Env) error {
	if err := namespaces(ctx, e); err != nil {
		return err
	}
	var err error
	if past.bare, err = e.Kube.Inventory(ctx, ""); err != nil {
		return err
	}
	if err := e.InstallOperator(ctx); err != nil {
		return err
	}
	if err := aggregated(ctx, e); err != nil {
		return err
	}
	if past.installed, err = e.Kube.Inventory(ctx, ""); err != nil {
		return err
	}
	if err := e.InstallMesh(ctx, journey.IngressOnly); err != nil {
		return err
	}
	return e.StartCast(ctx)
}

// aggregated waits until Kubernetes' own roles have what the operator's add to them,
// each for itself and by the lesser ones.
func aggregated(ctx context.Context, e *journey.Env) error {
	may := func(role *rbacv1.ClusterRole, verb, resource string) bool {
		return slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool {
			return slices.Contains(r.Verbs, verb) && slices.Contains(r.Resources, resource)
		})
	}
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		for _, name := range []string{"view", "edit", "admin"} {
			role, err := e.Kube.Typed.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			if !may(role, "get", "meshmembers") || name != "view" && !may(role, "create", "virtualservices") {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the roles view, edit and admin: %w", err)
	}
	return nil
}

// namespaces applies the cast's, and waits for what Kubernetes puts into each.
func namespaces(ctx context.Context, e *journey.Env) error {
	objects, err := kube.Parse(e.Outside.Scene().Manifest())
	if err != nil {
		return err
	}
	for _, o := range objects {
		if o.GetKind() != "Namespace" {
			continue
		}
		if err := e.Kube.ApplyObject(ctx, o); err != nil {
			return err
		}
		if err := e.Kube.AwaitExists(ctx, "ServiceAccount", o.GetName(), "default", time.Minute); err != nil {
			return err
		}
		if err := e.Kube.AwaitExists(ctx, "ConfigMap", o.GetName(), "kube-root-ca.crt", time.Minute); err != nil {
			return err
		}
	}
	return nil
}

// TestCluster runs the cases in this order on one cluster. Each brings about the
// topology that it needs; what takes things away comes last.
func TestCluster(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"journey in IngressOnly", journeyIn(journey.IngressOnly)},
		{"journey in SidecarEgress", journeyIn(journey.SidecarEgress)},
		{"journey in EgressGateway", journeyIn(journey.EgressGateway)},
		{"the wall is the operator's", untouchable},
		{"deleted objects come back", deleted},
		{"edited objects are repaired", edited},
		{"side by side", sideBySide},
		{"the mesh works after repairs", journeyIn(journey.EgressGateway)},
		{"removing the topology", removeTopology},
		{"removing the operator", removeOperator},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), c.run)
	}
}

// sideBySide runs what leaves the topology as it is, all at once.
func sideBySide(t *testing.T) {
	switchTo(t, journey.EgressGateway)
	for name, run := range map[string]func(*testing.T){
		"a new namespace and all who live there": newcomers,
		"a tenant who tries to get out":          tenant,
		"a gateway that somebody scales":         scaled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t)
		})
	}
}

func journeyIn(topology string) func(*testing.T) {
	return func(t *testing.T) {
		switchTo(t, topology)
		for _, f := range journey.Flows(topology) {
			t.Run(f.Name, func(t *testing.T) {
				o := f.Probe(t.Context(), env)
				if !o.OK {
					t.Errorf("want %s, got %s (known by: %s)", f.Expect, o.Seen, o.Known)
				}
			})
		}
	}
}

// switchTo moves to the topology and waits until it holds; nothing if it does.
func switchTo(t *testing.T, topology string) {
	t.Helper()
	if err := env.SwitchTo(t.Context(), topology); err != nil {
		t.Fatal(err)
	}
}
