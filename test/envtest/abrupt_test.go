// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// traveller is a mesh that goes to and fro between two topologies.
type traveller struct {
	*mesh
	at, next v1alpha1.TopologyKind
}

// turn asks for the other topology.
func (tr *traveller) turn() {
	tr.at, tr.next = tr.next, tr.at
	tr.edit(func(s *v1alpha1.MeshTopologySpec) { s.Topology = tr.at })
}

// arrived checks what stands at the end of a way.
func (tr *traveller) arrived() {
	tr.t.Helper()
	tr.holds(tr.at)
	if tr.at == v1alpha1.EgressGateway {
		tr.has(slices.Concat(always(tr.name), gatewayAndWalls(tr.name)))
	} else {
		tr.has(always(tr.name))
	}
	if c := tr.config(); c.Topology != topology.Kind(tr.at) {
		tr.t.Errorf("%s: published %s", tr.name, c.Topology)
	}
}

// travellers are six meshes, one for each way from one topology to another.
func travellers(t *testing.T) []*traveller {
	t.Helper()
	const in, car, gw = v1alpha1.IngressOnly, v1alpha1.SidecarEgress, v1alpha1.EgressGateway
	var out []*traveller
	for name, way := range map[string][2]v1alpha1.TopologyKind{
		"in-to-car": {in, car}, "in-to-gw": {in, gw}, "car-to-gw": {car, gw}, "car-to-in": {car, in}, "gw-to-in": {gw, in}, "gw-to-car": {gw, car},
	} {
		shared.witness.follow(name)
		t.Cleanup(func() { shared.witness.unfollow(name) })
		out = append(out, &traveller{mesh: newMesh(t, name, way[0], nil), at: way[0], next: way[1]})
	}
	for _, tr := range out {
		tr.holds(tr.at)
	}
	return out
}

// way are the phases to where the mesh is going.
func (tr *traveller) way() []string {
	order := []v1alpha1.TopologyKind{v1alpha1.IngressOnly, v1alpha1.SidecarEgress, v1alpha1.EgressGateway}
	if slices.Index(order, tr.next) < slices.Index(order, tr.at) {
		return []string{v1alpha1.PhaseRelaxing, v1alpha1.PhaseRouting, v1alpha1.PhaseRetiring, ""}
	}
	return []string{v1alpha1.PhasePreparing, v1alpha1.PhaseRouting, v1alpha1.PhaseEnforcing, ""}
}

// TestOperatorDiesInEachPhase kills the operator right after it wrote down a phase,
// before anything else that follows from it; in all six transitions at once, since
// what is cut off of one mesh says nothing of another. On the way back it loses the
// phase as well, and the MeshMembers. What the operator may do in which phase is checked at
// each of its writes.
func TestOperatorDiesInEachPhase(t *testing.T) {
	meshes := travellers(t)
	ways := map[string][]string{}
	for _, lost := range []bool{false, true} {
		for _, tr := range meshes {
			ways[tr.name] = tr.way()
			shared.witness.sets(tr.name, tr.way())
			tr.turn()
		}
		for range 4 {
			eventually(t, "phase to die in", shared.witness.cutOff)
			shared.kill(t)
			if lost {
				shared.witness.lose()
				for _, tr := range meshes {
					tr.loses()
					tr.losesMembers()
				}
			}
			shared.witness.resume()
			if err := shared.boot(shared.life); err != nil {
				t.Fatalf("start the operator again: %v", err)
			}
		}
		for _, tr := range meshes {
			tr.holds(tr.at)
			if diff := cmp.Diff(ways[tr.name], shared.witness.seen(tr.name)); diff != "" && !lost {
				t.Errorf("%s (-want +got):\n%s", tr.name, diff)
			}
		}
	}
	for _, tr := range meshes {
		tr.arrived()
		shared.witness.unfollow(tr.name)
		if err := tr.admin.Delete(t.Context(), tr.get()); err != nil {
			t.Error(err)
		}
	}
	for _, v := range shared.witness.violations() {
		t.Error(v)
	}
}

// loses deletes the ConfigMap with the phase.
func (tr *traveller) loses() {
	tr.t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tr.own, Name: topology.ConfigMapName(tr.name)}}
	if err := tr.admin.Delete(tr.t.Context(), cm); err != nil {
		tr.t.Fatal(err)
	}
}

// losesMembers deletes the MeshMembers, the other record of what the mesh had.
func (tr *traveller) losesMembers() {
	tr.t.Helper()
	var members v1alpha1.MeshMemberList
	if err := tr.admin.List(tr.t.Context(), &members, client.MatchingLabels{v1alpha1.LabelTopology: tr.name}); err != nil {
		tr.t.Fatal(err)
	}
	for i := range members.Items {
		if err := tr.admin.Delete(tr.t.Context(), &members.Items[i]); err != nil {
			tr.t.Fatal(err)
		}
	}
}

// TestLostStateBeginsAgain takes the ConfigMap away from an operator that lives:
// what stands does not go before it is written down that it may.
func TestLostStateBeginsAgain(t *testing.T) {
	shared.witness.follow("forgetful")
	t.Cleanup(func() { shared.witness.unfollow("forgetful") })
	tr := &traveller{mesh: newMesh(t, "forgetful", v1alpha1.EgressGateway, nil), at: v1alpha1.EgressGateway, next: v1alpha1.IngressOnly}
	tr.arrived()
	t.Run("at rest", func(t *testing.T) {
		shared.witness.lose()
		tr.loses()
		tr.published()
		tr.arrived()
	})
	t.Run("on the way", func(t *testing.T) {
		tr.proxies.hold(true)
		t.Cleanup(func() { tr.proxies.hold(false) })
		tr.turn()
		tr.phase(v1alpha1.PhaseRouting)
		shared.witness.lose()
		tr.loses()
		tr.published()
		if !slices.Contains(tr.inventory(), "Deployment own/egress-"+tr.name) {
			t.Error("the gateway is gone before the proxies follow")
		}
		tr.proxies.hold(false)
		tr.arrived()
	})
	for _, v := range shared.witness.violations() {
		if strings.HasPrefix(v, tr.name) {
			t.Error(v)
		}
	}
	shared.witness.unfollow(tr.name)
	tr.leavesNothing()
}

// published waits until there is a configuration again.
func (tr *traveller) published() {
	tr.t.Helper()
	read(tr.mesh, tr.own, topology.ConfigMapName(tr.name), &corev1.ConfigMap{})
}
