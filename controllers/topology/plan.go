// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/charts"
	"github.com/isthmus-mesh/isthmus/internal/conditions"
	"github.com/isthmus-mesh/isthmus/internal/operator/allowance"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	"github.com/isthmus-mesh/isthmus/internal/operator/patch"
	"github.com/isthmus-mesh/isthmus/internal/operator/policy"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
	"github.com/isthmus-mesh/isthmus/internal/render"
	mesh "github.com/isthmus-mesh/isthmus/internal/topology"
)

// Plan is what must be so now, decided from facts.
type Plan struct {
	// Accepted says whether the spec can be carried out; if not, nothing is done.
	Accepted conditions.Condition
	State    transition.State
	Config   mesh.Config
	// Ground is what everything else stands on: namespace, and the operator's right
	// to work in it.
	Ground []*unstructured.Unstructured
	// Objects in the order of applying; the first is the ConfigMap, so that a state
	// is durable before anything is done for it.
	Objects []*unstructured.Unstructured
	// Destinations are ServiceEntries. They come last: isthmusd's webhook may refuse
	// one, which must not keep anything else from its place.
	Destinations []*unstructured.Unstructured
	// Departing is the step of deletion that is waited for, and why.
	Departing string
}

// Decide plans. It is pure: the same facts give the same plan.
func Decide(f *Facts) (*Plan, error) {
	p := &Plan{Accepted: accept(f), State: f.State}
	if p.Accepted.Status != "True" || f.Mesh.Spec.Suspend {
		return p, nil
	}
	p.State = transition.Next(f.State, f.Mesh.Spec.Topology, f.observe())
	var err error
	if p.Config, err = f.config(p.State); err != nil {
		return nil, err
	}
	p.State.Epoch = p.Config.Epoch
	p.Ground = f.ground()
	p.Destinations = f.destinations()
	p.Objects, err = f.objects(p)
	var refused patch.Refusal
	if errors.As(err, &refused) {
		return &Plan{Accepted: conditions.False(v1alpha1.ConditionAccepted, v1alpha1.ReasonInvalid, refused.Error()), State: f.State}, nil
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// accept judges the spec where the API's own rules cannot.
func accept(f *Facts) conditions.Condition {
	// What runs may go on: a newer operator does not move it unasked.
	if v := f.version(); v != f.Settings.Version && v != f.Mesh.Status.Version {
		return conditions.False(v1alpha1.ConditionAccepted, v1alpha1.ReasonUnsupportedVersion,
			fmt.Sprintf("version %s is not one that this operator installs: it installs %s", v, f.Settings.Version))
	}
	if first := f.sharer(); first != "" {
		return conditions.False(v1alpha1.ConditionAccepted, v1alpha1.ReasonNamespaceTaken, fmt.Sprintf(
			"namespace %s is MeshTopology %s's: each mesh has keys, root objects and names of its own, so set spec.namespace to another one", f.Mesh.Spec.Namespace, first))
	}
	if f.Mesh.Spec.Namespace == f.Settings.Namespace {
		return conditions.False(v1alpha1.ConditionAccepted, v1alpha1.ReasonNamespaceTaken,
			fmt.Sprintf("namespace %s is the operator's own", f.Mesh.Spec.Namespace))
	}
	for _, w := range f.Mesh.Spec.Members.NamespaceSelectors {
		if _, err := selector(&w); err != nil {
			return conditions.False(v1alpha1.ConditionAccepted, v1alpha1.ReasonInvalid, "members.namespaceSelectors: "+err.Error())
		}
	}
	if err := checkEgress(f.Mesh.Spec.Egress); err != nil {
		return conditions.False(v1alpha1.ConditionAccepted, v1alpha1.ReasonInvalid, err.Error())
	}
	if f.State.Walls() && !f.knowsDNS() {
		dns := f.Mesh.Spec.Egress.NetworkPolicy.DNS
		return conditions.False(v1alpha1.ConditionAccepted, v1alpha1.ReasonInvalid, fmt.Sprintf(
			"egress.networkPolicy.dns: there is no Service %s/%s with an address or pods, so NetworkPolicies would cut members off from DNS: they stay as they are", dns.Namespace, dns.Service))
	}
	if v := f.version(); v != f.Settings.Version {
		return conditions.True(v1alpha1.ConditionAccepted, v1alpha1.ReasonAccepted,
			fmt.Sprintf("Version %s goes on; this operator installs %s: set spec.version to move.", v, f.Settings.Version))
	}
	return conditions.True(v1alpha1.ConditionAccepted, v1alpha1.ReasonAccepted, "The spec can be carried out.")
}

// sharer is the MeshTopology that had this one's namespace first; empty if none did.
func (f *Facts) sharer() string {
	for _, o := range f.Others {
		if o.Spec.Namespace != f.Mesh.Spec.Namespace {
			continue
		}
		if cmp.Or(o.CreationTimestamp.Compare(f.Mesh.CreationTimestamp.Time), strings.Compare(o.Name, f.Mesh.Name)) < 0 {
			return o.Name
		}
	}
	return ""
}

// checkEgress finds what would become an object that is refused, or two of one name.
func checkEgress(e v1alpha1.Egress) error {
	names := map[string]bool{}
	for _, d := range e.Destinations {
		exact, wild := hostsOf(d)
		if len(wild) > 0 && slices.ContainsFunc(d.Ports, func(p v1alpha1.DestinationPort) bool { return p.Protocol == "TCP" }) {
			return fmt.Errorf("egress.destinations %s: a wildcard needs a protocol that names the host, TCP does not: use TLS, HTTPS or HTTP", d.Name)
		}
		var entries []string
		if len(exact) > 0 {
			entries = append(entries, d.Name)
		}
		if len(wild) > 0 {
			entries = append(entries, d.Name+wildcardSuffix)
		}
		for _, name := range entries {
			if names[name] {
				return fmt.Errorf("egress.destinations: the wildcards of %s and the destination %s would become one ServiceEntry: rename one",
					strings.TrimSuffix(name, wildcardSuffix), name)
			}
			names[name] = true
		}
	}
	for _, a := range e.NetworkPolicy.Allow {
		whole, err := netip.ParsePrefix(a.To.CIDR)
		for _, x := range a.To.Except {
			if part, bad := netip.ParsePrefix(x); err != nil || bad != nil || part.Bits() <= whole.Bits() || !whole.Contains(part.Addr()) {
				return fmt.Errorf("egress.networkPolicy.allow %s: except %s does not lie inside %s", a.Name, x, a.To.CIDR)
			}
		}
	}
	return nil
}

// observe is what the phases of a transition wait for.
func (f *Facts) observe() transition.Observed {
	o := transition.Observed{
		ControlPlaneReady: available(f.Parts.ControlPlane) && f.Trust.Root != "",
		GatewayReady:      atMinimum(f.Parts.Gateways[revision.Egress].Deployment) && f.knowsDNS(),
		GatewayGone:       f.Parts.Gateways[revision.Egress].Deployment == nil,
		Acknowledged:      f.Published.Topology == mesh.Kind(f.State.Routes()) && f.Distribution.Acknowledged(),
		Clear:             true,
		WallsUp:           true,
		WallsDown:         f.Members.Policies == 0,
	}
	if f.Mesh.Spec.Egress.NetworkPolicy.Mode == v1alpha1.PolicyOff {
		return o
	}
	for _, ns := range f.Members.Namespaces {
		i := slices.IndexFunc(f.Members.Objects, func(m v1alpha1.MeshMember) bool {
			return m.Namespace == ns.Name && m.Status.Epoch == f.Published.Epoch
		})
		o.Clear = o.Clear && i >= 0
		o.WallsUp = o.WallsUp && i >= 0 && f.Members.Objects[i].Status.Enforced
	}
	o.Clear = o.Clear && len(f.obstacles()) == 0
	return o
}

// obstacles are what keeps the walls from going up: pods that would be cut, unless
// that is asked for, and NetworkPolicies of others that would open them.
func (f *Facts) obstacles() []conditions.Condition {
	var out []conditions.Condition
	e := f.egress()
	if e.BlockingCount > 0 && f.Mesh.Spec.Transition.Uninjected != v1alpha1.UninjectedCut {
		out = append(out, conditions.False("", v1alpha1.ReasonUninjected, fmt.Sprintf(
			"%d running pods would be cut or refused (restart or mend them, or set spec.transition.uninjected to Cut): %s", e.BlockingCount, some(e.Blocking))))
	}
	if e.HolesCount > 0 {
		out = append(out, f.hole(e))
	}
	return out
}

func (f *Facts) hole(e *v1alpha1.EgressStatus) conditions.Condition {
	return conditions.False(v1alpha1.ConditionEgressEnforced, v1alpha1.ReasonPolicyHole, fmt.Sprintf(
		"NetworkPolicies of others open more than the wall does (change or remove them, or allow it in spec.egress.networkPolicy.allow): %s", some(e.Holes)))
}

// knowsDNS tells whether walls would leave a way to the cluster's DNS.
func (f *Facts) knowsDNS() bool {
	return f.Mesh.Spec.Egress.NetworkPolicy.Mode == v1alpha1.PolicyOff || len(f.Cluster.DNS.Addresses)+len(f.Cluster.DNS.Selector) > 0
}

// ground is the namespace, if it is the operator's to make, and the right to work
// in it.
func (f *Facts) ground() []*unstructured.Unstructured {
	own := f.Mesh.Spec.Namespace
	var out []*unstructured.Unstructured
	if f.Parts.Namespace == nil || f.Parts.Namespace.Labels[v1alpha1.LabelTopology] == f.Mesh.Name {
		ns := object("v1", "Namespace", "", own)
		ns.SetLabels(map[string]string{v1alpha1.LabelTopology: f.Mesh.Name})
		out = append(out, ns)
	}
	return append(out, f.access()...)
}

// access is the operator's right to work in the topology's namespace.
func (f *Facts) access() []*unstructured.Unstructured {
	access := object("rbac.authorization.k8s.io/v1", "RoleBinding", f.Mesh.Spec.Namespace, revision.Access(f.Mesh.Name))
	access.Object["roleRef"] = map[string]any{
		"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": AccessRole,
	}
	access.Object["subjects"] = []any{map[string]any{
		"kind": "ServiceAccount", "name": f.Settings.ServiceAccount, "namespace": f.Settings.Namespace,
	}}
	return f.own(componentAccess, access)
}

// AccessRole is the ClusterRole that the operator binds to itself in the
// namespaces of topologies.
const AccessRole = "isthmus-operator-namespace"

// componentAccess goes last when a topology is deleted.
const componentAccess = "access"

// objects is everything but the ground.
func (f *Facts) objects(p *Plan) ([]*unstructured.Unstructured, error) {
	data, err := f.data(p.State, p.Config)
	if err != nil {
		return nil, err
	}
	cm := object("v1", "ConfigMap", f.Mesh.Spec.Namespace, mesh.ConfigMapName(f.Mesh.Name))
	cm.Object["data"] = data
	out := f.own(v1alpha1.ComponentControlPlane, cm)
	add := func(objects []*unstructured.Unstructured, failed error) {
		out = append(out, objects...)
		if err == nil {
			err = failed
		}
	}
	// Before what a spec can spoil: an object that is refused stops all after it.
	if p.State.Walls() && f.Mesh.Spec.Egress.NetworkPolicy.Mode != v1alpha1.PolicyOff {
		add(f.guard(p.Config))
		add(f.walls(p.Config.Allowance))
	}
	add(f.parts(p))
	return slices.DeleteFunc(out, f.early), err
}

// parts are control plane and gateways, with spec.patches laid over them.
func (f *Facts) parts(p *Plan) ([]*unstructured.Unstructured, error) {
	out, err := f.chart(charts.ControlPlane, v1alpha1.ComponentControlPlane, f.controlPlaneValues())
	if err != nil {
		return nil, err
	}
	for _, g := range f.Mesh.Spec.Ingress.Gateways {
		gateway, err := f.chart(charts.Gateway, v1alpha1.ComponentIngressGateway, f.ingressValues(g))
		if err != nil {
			return nil, err
		}
		out = append(out, gateway...)
	}
	// A patch that is for another topology's gateway is judged before it is needed.
	var later []*unstructured.Unstructured
	if p.State.Gateway() || slices.ContainsFunc(f.Mesh.Spec.Patches, func(p v1alpha1.Patch) bool { return p.Target.Part == revision.Egress }) {
		if later, err = f.chart(charts.Gateway, v1alpha1.ComponentEgressGateway, f.egressValues()); err != nil {
			return nil, err
		}
	}
	if err := patch.Apply(slices.Concat(out, later), f.Mesh.Spec.Patches); err != nil {
		return nil, err
	}
	if p.State.Gateway() {
		out = append(out, later...)
	}
	return out, nil
}

// early tells whether it is too early for a Deployment: it is not there yet, nor is
// its ServiceAccount, whose uid its pods are to bear from the first.
func (f *Facts) early(o *unstructured.Unstructured) bool {
	if o.GetKind() != "Deployment" {
		return false
	}
	account, _, _ := unstructured.NestedString(o.Object, "spec", "template", "spec", "serviceAccountName")
	_, known := f.Parts.Accounts[account]
	return !known && !f.stands(o.GetName())
}

// stands tells whether a Deployment of the mesh is there.
func (f *Facts) stands(name string) bool {
	if d := f.Parts.ControlPlane; d != nil && d.Name == name {
		return true
	}
	for _, g := range f.Parts.Gateways {
		if g.Deployment != nil && g.Deployment.Name == name {
			return true
		}
	}
	return false
}

func (f *Facts) chart(name, component string, values any) ([]*unstructured.Unstructured, error) {
	v, err := render.Values(values)
	if err != nil {
		return nil, err
	}
	out, err := render.Chart(charts.FS, name, render.Release{Name: f.Mesh.Name, Namespace: f.Mesh.Spec.Namespace}, v)
	if err != nil {
		return nil, err
	}
	return f.own(component, out...), nil
}

// walls are the NetworkPolicies around the mesh's own parts. Those of members are
// the member controller's.
func (f *Facts) walls(flows []mesh.Flow) ([]*unstructured.Unstructured, error) {
	const in, out = networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress
	around := []struct {
		component, name string
		types           []networkingv1.PolicyType
	}{
		{v1alpha1.ComponentControlPlane, "control-plane", []networkingv1.PolicyType{in, out}},
		{v1alpha1.ComponentIngressGateway, "ingress", []networkingv1.PolicyType{out}},
		{v1alpha1.ComponentEgressGateway, "egress", []networkingv1.PolicyType{in, out}},
	}
	var objects []*unstructured.Unstructured
	for _, a := range around {
		part := allowance.Part(f.Mesh.Name, f.Mesh.Spec.Namespace, a.component)
		u, err := apply.Unstructured(policy.Around(part, revision.Policy(a.name, f.Mesh.Name), flows, a.types...))
		if err != nil {
			return nil, err
		}
		objects = append(objects, u)
	}
	return f.own(v1alpha1.ComponentNetworkPolicy, objects...), nil
}

// destinations are the ServiceEntries of spec.egress.destinations, for the whole
// mesh because they are in its root namespace. Wildcards are resolved per request
// and so get an entry of their own.
func (f *Facts) destinations() []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, d := range f.Mesh.Spec.Egress.Destinations {
		exact, wild := hostsOf(d)
		if len(exact) > 0 {
			out = append(out, f.serviceEntry(revision.Destination(d.Name, f.Mesh.Name), exact, "DNS", d.Ports))
		}
		if len(wild) > 0 {
			out = append(out, f.serviceEntry(revision.Destination(d.Name+wildcardSuffix, f.Mesh.Name), wild, "DYNAMIC_DNS", d.Ports))
		}
	}
	return f.own(v1alpha1.ComponentDestination, out...)
}

// wildcardSuffix tells the entry of a destination's wildcards from that of its other hosts.
const wildcardSuffix = "-wildcard"

func hostsOf(d v1alpha1.Destination) (exact, wild []any) {
	for _, h := range d.Hosts {
		if h[0] == '*' {
			wild = append(wild, h)
		} else {
			exact = append(exact, h)
		}
	}
	return exact, wild
}

func (f *Facts) serviceEntry(name string, hosts []any, resolution string, ports []v1alpha1.DestinationPort) *unstructured.Unstructured {
	var list []any
	for _, p := range ports {
		list = append(list, map[string]any{
			"number": int64(p.Number), "protocol": p.Protocol, "name": fmt.Sprintf("%s-%d", lower(p.Protocol), p.Number),
		})
	}
	u := object("networking.istio.io/v1", "ServiceEntry", f.Mesh.Spec.Namespace, name)
	u.Object["spec"] = map[string]any{
		"hosts": hosts, "ports": list, "location": "MESH_EXTERNAL", "resolution": resolution,
	}
	return u
}

// own labels objects and makes them go with the MeshTopology.
func (f *Facts) own(component string, objects ...*unstructured.Unstructured) []*unstructured.Unstructured {
	owner, err := runtime.DefaultUnstructuredConverter.ToUnstructured(new(f.owner()))
	if err != nil {
		panic(fmt.Sprintf("convert an owner reference: %v", err)) // a value of our own
	}
	for _, o := range objects {
		labels := maps.Clone(o.GetLabels())
		if labels == nil {
			labels = map[string]string{}
		}
		labels[v1alpha1.LabelTopology] = f.Mesh.Name
		labels[v1alpha1.LabelComponent] = component
		o.SetLabels(labels)
		o.Object["metadata"].(map[string]any)["ownerReferences"] = []any{owner}
	}
	return objects
}
