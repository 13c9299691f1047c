// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/conditions"
	"github.com/isthmus-mesh/isthmus/internal/operator/membership"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
)

// expiring is how long before its end a CA is somebody's business.
const expiring = 30 * 24 * time.Hour

// examples is how many pods without a proxy status names.
const examples = 20

// Status is what is said of a topology. It is pure: facts, what was planned, and
// what went wrong in doing it.
func Status(f *Facts, p *Plan, failure error) v1alpha1.MeshTopologyStatus {
	old := f.Mesh.Status
	s := v1alpha1.MeshTopologyStatus{
		ObservedGeneration: f.Mesh.Generation,
		Topology:           p.State.Holds(),
		Version:            old.Version,
		Revision:           f.revision(),
		Effective: &v1alpha1.Effective{
			EgressPolicy:       EgressPolicy(f.Mesh, f.Mesh.Spec.Topology),
			NamespaceSelectors: membership.Selectors(f.Mesh),
			Registry:           f.registry(),
			CPURequest:         new(cpuRequest()),
			Discovery:          discovery(f.Mesh),
		},
		Transition: f.transition(p),
		Gateways:   f.gateways(),
		Members:    f.memberCounts(),
	}
	if f.Mesh.Spec.Topology == v1alpha1.EgressGateway || p.State.Active == v1alpha1.EgressGateway {
		s.Egress = f.egress()
	}
	if p.Accepted.Status == metav1.ConditionTrue {
		s.Version = f.version()
	}
	s.CA = old.CA // the one that was known last
	if f.Trust.Fingerprint != "" {
		s.CA = &v1alpha1.CAStatus{Fingerprint: f.Trust.Fingerprint}
		if !f.Trust.NotAfter.IsZero() {
			s.CA.NotAfter = &metav1.Time{Time: f.Trust.NotAfter}
		}
	}
	parts := f.conditions(p)
	all := append(summary(f, p, parts, failure), parts...)
	s.Conditions = conditions.Merge(old.Conditions, conditions.Stamp{Now: metav1.Time{Time: f.Now}, Generation: f.Mesh.Generation}, all...)
	return s
}

// conditions says how each part is, in the order in which they depend on each other.
func (f *Facts) conditions(p *Plan) []conditions.Condition {
	return []conditions.Condition{
		p.Accepted, f.apis(), f.membersResolved(), f.ca(), f.controlPlane(), f.injection(),
		f.gatewaysReady(p), f.distributed(), f.enforced(p),
	}
}

// stalling are the reasons that only a person can clear.
var stalling = []string{
	v1alpha1.ReasonInvalid, v1alpha1.ReasonUnsupportedVersion, v1alpha1.ReasonNamespaceTaken, v1alpha1.ReasonOverlap,
	v1alpha1.ReasonUnusable, v1alpha1.ReasonLost, v1alpha1.ReasonRootChanged, v1alpha1.ReasonDeadlineExceeded, v1alpha1.ReasonPolicyHole,
}

// summary is Ready, Reconciling and Stalled, from the parts.
func summary(f *Facts, p *Plan, parts []conditions.Condition, failure error) []conditions.Condition {
	var waiting, stuck *conditions.Condition
	for i, c := range parts {
		if c.Status != metav1.ConditionFalse {
			continue
		}
		if slices.Contains(stalling, c.Reason) && stuck == nil {
			stuck = &parts[i]
		}
		if waiting == nil {
			waiting = &parts[i]
		}
	}
	verdict := func(reason, message string) []conditions.Condition {
		return []conditions.Condition{
			conditions.False(v1alpha1.ConditionReady, reason, message),
			conditions.True(v1alpha1.ConditionReconciling, reason, message),
			conditions.False(v1alpha1.ConditionStalled, v1alpha1.ReasonNotStalled, "Nothing needs a person."),
		}
	}
	if stops := f.stops(p); stuck == nil && len(stops) > 0 {
		stuck = &stops[0]
	}
	switch {
	case f.Mesh.DeletionTimestamp != nil:
		return verdict(v1alpha1.ReasonDeleting, "The mesh is being removed: "+p.Departing)
	case stuck != nil:
		return []conditions.Condition{
			conditions.False(v1alpha1.ConditionReady, stuck.Reason, stuck.Message),
			conditions.False(v1alpha1.ConditionReconciling, stuck.Reason, "Waits for a person: see Stalled."),
			conditions.True(v1alpha1.ConditionStalled, stuck.Reason, stuck.Message),
		}
	case failure != nil:
		return verdict(v1alpha1.ReasonApplyFailed, failure.Error())
	case f.Mesh.Spec.Suspend:
		return suspended(f, p, waiting)
	case !p.State.Settled():
		return verdict(v1alpha1.ReasonTransition, transitionMessage(f, p))
	case waiting != nil:
		return verdict(waiting.Reason, waiting.Type+": "+waiting.Message)
	case f.Mesh.Spec.Topology != p.State.Active:
		return verdict(v1alpha1.ReasonTransition, "The topology is about to change.")
	}
	return settled(v1alpha1.ReasonReady, fmt.Sprintf("Topology %s holds.", p.State.Active))
}

// patience is how long proxies may lag before that is somebody's business.
const patience = 5 * time.Minute

// stops are what keeps a transition where it is until a person does something.
func (f *Facts) stops(p *Plan) []conditions.Condition {
	if p.State.Phase != v1alpha1.PhaseRouting || p.State != f.State {
		return nil
	}
	if o := f.observe(); !o.Acknowledged {
		was := f.Mesh.Status.Transition
		if len(f.Distribution.Lagging) == 0 || was == nil || was.Phase != p.State.Phase || was.Since == nil || f.Now.Sub(was.Since.Time) < patience {
			return nil
		}
		return []conditions.Condition{conditions.False("", v1alpha1.ReasonLagging, "proxies do not follow, restart or remove their pods: "+f.lagging())}
	}
	if !p.State.Tightening() || p.State.Target != v1alpha1.EgressGateway {
		return nil
	}
	return f.obstacles()
}

// lagging names the proxies that do not follow yet.
func (f *Facts) lagging() string {
	var names []string
	for _, p := range f.Distribution.Lagging {
		names = append(names, p.String())
	}
	return some(names)
}

// suspended says what is so, and that nobody works on what is not.
func suspended(f *Facts, p *Plan, waiting *conditions.Condition) []conditions.Condition {
	missing := ""
	switch {
	case waiting != nil:
		missing = waiting.Type + ": " + waiting.Message
	case !p.State.Settled():
		missing = fmt.Sprintf("In phase %s, from %s to %s.", p.State.Phase, p.State.Active, p.State.Target)
	case f.Mesh.Spec.Topology != p.State.Active:
		missing = fmt.Sprintf("Topology %s is asked for.", f.Mesh.Spec.Topology)
	default:
		return settled(v1alpha1.ReasonSuspended, "Everything stands; the operator changes nothing while spec.suspend is set.")
	}
	out := settled(v1alpha1.ReasonSuspended, missing+" The operator changes nothing while spec.suspend is set.")
	out[0].Status = metav1.ConditionFalse
	return out
}

func settled(reason, message string) []conditions.Condition {
	return []conditions.Condition{
		conditions.True(v1alpha1.ConditionReady, reason, message),
		conditions.False(v1alpha1.ConditionReconciling, v1alpha1.ReasonSettled, "Nothing is under way."),
		conditions.False(v1alpha1.ConditionStalled, v1alpha1.ReasonNotStalled, "Nothing needs a person."),
	}
}

func (f *Facts) apis() conditions.Condition {
	const kind = v1alpha1.ConditionAPIsAvailable
	if len(f.Missing) > 0 {
		return conditions.False(kind, v1alpha1.ReasonMissing, "CRDs that the mesh needs are not there: "+strings.Join(f.Missing, ", "))
	}
	return conditions.True(kind, v1alpha1.ReasonAvailable, "Istio's CRDs are there.")
}

func (f *Facts) membersResolved() conditions.Condition {
	const kind = v1alpha1.ConditionMembersResolved
	switch n := len(f.Members.Namespaces); {
	case f.Members.Problem != "":
		return conditions.False(kind, v1alpha1.ReasonInvalid, f.Members.Problem)
	case len(f.Members.Contested) > 0:
		return conditions.False(kind, v1alpha1.ReasonOverlap, "namespaces that another MeshTopology has: "+some(f.Members.Contested))
	case n == 0:
		return conditions.True(kind, v1alpha1.ReasonNoMembers, "No namespace is selected.")
	default:
		return conditions.True(kind, v1alpha1.ReasonResolved, fmt.Sprintf("%d namespaces.", n))
	}
}

func (f *Facts) ca() conditions.Condition {
	const kind = v1alpha1.ConditionCAReady
	end := f.Trust.NotAfter
	switch {
	case f.Trust.Root == "":
		return conditions.False(kind, v1alpha1.ReasonWaiting, "The CA is not there yet; if it lasts, Events tell why.")
	case f.Trust.Problem != "":
		return conditions.False(kind, f.Trust.Reason, f.Trust.Problem)
	case !end.IsZero() && f.Now.After(end):
		return conditions.False(kind, v1alpha1.ReasonUnusable, "The CA's certificate ended at "+end.UTC().Format(time.RFC3339)+".")
	case !end.IsZero() && end.Sub(f.Now) < expiring:
		return conditions.True(kind, v1alpha1.ReasonExpiring, "The CA's certificate ends at "+end.UTC().Format(time.RFC3339)+".")
	}
	return conditions.True(kind, v1alpha1.ReasonAvailable, "The CA signs.")
}

func (f *Facts) controlPlane() conditions.Condition {
	return deployment(v1alpha1.ConditionControlPlaneReady, "isthmusd", f.Parts.ControlPlane)
}

func deployment(kind, what string, d *appsv1.Deployment) conditions.Condition {
	switch {
	case d == nil:
		return conditions.False(kind, v1alpha1.ReasonInstalling, what+" is not there yet.")
	case available(d):
		return conditions.True(kind, v1alpha1.ReasonAvailable, what+" serves.")
	case stuck(d):
		return conditions.False(kind, v1alpha1.ReasonDeadlineExceeded, fmt.Sprintf("pods of Deployment %s do not become ready", d.Name))
	}
	return conditions.False(kind, v1alpha1.ReasonUnavailable, fmt.Sprintf("Deployment %s: %d of %d pods ready.", d.Name, d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, 1)))
}

func (f *Facts) injection() conditions.Condition {
	const kind = v1alpha1.ConditionInjectionReady
	switch {
	case !f.Parts.Injector.Present:
		return conditions.False(kind, v1alpha1.ReasonWaiting, "The injection webhook has not answered a probe yet.")
	case !f.Parts.Injector.Trusted:
		return conditions.False(kind, v1alpha1.ReasonWaiting, "The injection webhook does not trust the present root certificate yet.")
	}
	return conditions.True(kind, v1alpha1.ReasonAvailable, "New pods of members get their proxy.")
}

func (f *Facts) gatewaysReady(p *Plan) conditions.Condition {
	const kind = v1alpha1.ConditionGatewaysReady
	names := f.gatewayNames(p)
	if len(names) == 0 {
		return conditions.True(kind, v1alpha1.ReasonNone, "No gateway is asked for.")
	}
	var pending []string
	for _, n := range names {
		g := f.Parts.Gateways[n]
		c := deployment(kind, "Gateway "+n, g.Deployment)
		if c.Status == metav1.ConditionFalse {
			return c
		}
		if g.Service != nil && g.Service.Spec.Type == corev1.ServiceTypeLoadBalancer && len(g.Service.Status.LoadBalancer.Ingress) == 0 {
			pending = append(pending, n)
		}
	}
	message := "All gateways serve."
	if len(pending) > 0 {
		message += " No address from a load balancer yet: " + strings.Join(pending, ", ") + "."
	}
	return conditions.True(kind, v1alpha1.ReasonAvailable, message)
}

func (f *Facts) gatewayNames(p *Plan) []string {
	var names []string
	for _, g := range f.Mesh.Spec.Ingress.Gateways {
		names = append(names, g.Name)
	}
	if p.State.Gateway() {
		names = append(names, revision.Egress)
	}
	return names
}

func (f *Facts) distributed() conditions.Condition {
	const kind = v1alpha1.ConditionConfigDistributed
	d := f.Distribution
	switch {
	case !d.Asked:
		return conditions.Unknown(kind, v1alpha1.ReasonWaiting, "Nothing has been published yet, or isthmusd does not serve.")
	case d.Problem != "":
		return conditions.Unknown(kind, v1alpha1.ReasonProbeFailed, d.Problem)
	case len(d.Lagging) > 0:
		return conditions.Unknown(kind, v1alpha1.ReasonLagging, fmt.Sprintf("%d of %d proxies do not follow yet: %s", len(d.Lagging), len(d.Expected), f.lagging()))
	}
	return conditions.True(kind, v1alpha1.ReasonAcknowledged, fmt.Sprintf("All %d proxies follow.", len(d.Expected)))
}

// enforced says whether it is proved that nothing leaves but through the gateway.
// Nothing measures that yet, so it is never True.
func (f *Facts) enforced(p *Plan) conditions.Condition {
	const kind = v1alpha1.ConditionEgressEnforced
	switch {
	case f.Mesh.Spec.Topology != v1alpha1.EgressGateway:
		return conditions.Unknown(kind, v1alpha1.ReasonNotApplicable, fmt.Sprintf("Topology %s enforces nothing by NetworkPolicy.", f.Mesh.Spec.Topology))
	case f.Mesh.Spec.Egress.NetworkPolicy.Mode == v1alpha1.PolicyOff:
		return conditions.Unknown(kind, v1alpha1.ReasonNotEnforced, "spec.egress.networkPolicy.mode is Off.")
	case !p.State.Settled() || p.State.Active != v1alpha1.EgressGateway:
		return conditions.Unknown(kind, v1alpha1.ReasonTransition, "The NetworkPolicies are not all in place yet.")
	}
	e := f.egress()
	if e.HolesCount > 0 {
		return f.hole(e)
	}
	exempt := ""
	if n := len(slices.DeleteFunc(e.Exemptions, func(x v1alpha1.ExemptionStatus) bool { return !x.Active })); n > 0 {
		exempt = fmt.Sprintf(" %d exemptions from the guard are not covered.", n)
	}
	return conditions.Unknown(kind, v1alpha1.ReasonNotMeasured, "The NetworkPolicies are in place; whether the cluster enforces them is not measured."+exempt)
}

// egress is what members say of the wall, and the exemptions from its guard.
func (f *Facts) egress() *v1alpha1.EgressStatus {
	e := &v1alpha1.EgressStatus{}
	for _, x := range f.Mesh.Spec.Egress.Guard.Exemptions {
		e.Exemptions = append(e.Exemptions, v1alpha1.ExemptionStatus{
			Name: x.Name, For: x.Namespace + "/" + x.ServiceAccount, Expires: x.Expires, Active: f.Now.Before(x.Expires.Time),
		})
	}
	for _, o := range f.Members.Objects {
		e.BlockingCount += o.Status.BlockingCount
		e.HolesCount += o.Status.HolesCount
		e.Blocking = append(e.Blocking, within(o.Namespace, o.Status.Blocking)...)
		e.Holes = append(e.Holes, within(o.Namespace, o.Status.Holes)...)
	}
	e.Blocking, e.Holes = shortest(e.Blocking), shortest(e.Holes)
	return e
}

func within(namespace string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = namespace + "/" + n
	}
	return out
}

// shortest sorts a list and keeps what status has room for.
func shortest(list []string) []string {
	slices.Sort(list)
	return list[:min(len(list), examples)]
}

func (f *Facts) transition(p *Plan) *v1alpha1.Transition {
	if p.State.Settled() {
		return nil
	}
	t := &v1alpha1.Transition{From: p.State.Active, To: p.State.Target, Phase: p.State.Phase, Since: &metav1.Time{Time: f.Now.Truncate(time.Second)}}
	if was := f.Mesh.Status.Transition; was != nil && was.Phase == t.Phase && was.From == t.From && was.To == t.To {
		t.Since = was.Since
	}
	t.Message = transitionMessage(f, p)
	return t
}

func transitionMessage(f *Facts, p *Plan) string {
	o := f.observe()
	waits := "all is there for the next phase"
	switch {
	case p.State.Phase == v1alpha1.PhasePreparing && !o.ControlPlaneReady:
		waits = "the control plane must serve"
	case p.State.Phase == v1alpha1.PhasePreparing && p.State.Gateway() && !f.knowsDNS():
		waits = "the cluster's DNS Service is not where spec.egress.networkPolicy.dns says, so NetworkPolicies would cut it off"
	case p.State.Phase == v1alpha1.PhasePreparing && p.State.Gateway() && !o.GatewayReady:
		waits = "the egress gateway must serve"
	case p.State.Phase == v1alpha1.PhaseRouting && !o.Acknowledged:
		waits = "every proxy must follow the new routes"
		if len(f.Distribution.Lagging) > 0 {
			waits += "; not yet: " + f.lagging()
		}
	case p.State.Phase == v1alpha1.PhaseRouting && len(f.stops(p)) > 0:
		waits = f.stops(p)[0].Message
	case p.State.Phase == v1alpha1.PhaseRouting && !o.Clear && p.State.Target == v1alpha1.EgressGateway:
		waits = "the members must be looked at"
	case p.State.Phase == v1alpha1.PhaseEnforcing && p.State.Walls() && !o.WallsUp:
		waits = "every member must have its NetworkPolicies"
	case p.State.Phase == v1alpha1.PhaseRelaxing && !o.WallsDown:
		waits = "the members' NetworkPolicies must be gone"
	case p.State.Phase == v1alpha1.PhaseRetiring && !p.State.Gateway() && !o.GatewayGone:
		waits = "the egress gateway must be gone"
	}
	return fmt.Sprintf("%s, from %s to %s: %s.", p.State.Phase, p.State.Active, p.State.Target, waits)
}

func (f *Facts) gateways() []v1alpha1.GatewayStatus {
	var out []v1alpha1.GatewayStatus
	for name, g := range f.Parts.Gateways {
		s := v1alpha1.GatewayStatus{Name: name, Addresses: addresses(g.Service)}
		if g.Deployment != nil {
			s.Ready, s.Replicas = g.Deployment.Status.ReadyReplicas, ptr.Deref(g.Deployment.Spec.Replicas, 1)
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b v1alpha1.GatewayStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func addresses(s *corev1.Service) []string {
	if s == nil {
		return nil
	}
	var out []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		out = append(out, cmp.Or(i.IP, i.Hostname))
	}
	if len(out) == 0 {
		out = append(out, s.Spec.ClusterIPs...)
	}
	return out
}

func (f *Facts) memberCounts() *v1alpha1.MembersStatus {
	m := &v1alpha1.MembersStatus{Namespaces: int32(len(f.Members.Namespaces))}
	for _, o := range f.Members.Objects {
		m.Pods += o.Status.Pods
		m.Injected += o.Status.Injected
		m.Missing += o.Status.MissingCount
		m.Examples = append(m.Examples, within(o.Namespace, o.Status.Missing)...)
	}
	m.Examples = shortest(m.Examples)
	return m
}

// some lists names, but not all of very many.
func some(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
