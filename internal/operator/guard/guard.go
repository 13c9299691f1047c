// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/inject"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// Facts are what the guard depends on.
type Facts struct {
	// Topology is its name, Revision what new pods record.
	Topology, Revision string
	// Namespace of the control plane.
	Namespace string
	// Operator is the user that the operator acts as.
	Operator string
	// Members are selectors of the namespaces that are guarded.
	Members []metav1.LabelSelector
	// Peers are selectors that cover nothing but members, as short as can be: what
	// tenants have to write in their NetworkPolicies.
	Peers []metav1.LabelSelector
	// Spec is spec.egress.guard.
	Spec v1alpha1.Guard
	// Now decides which exemptions have ended.
	Now time.Time

	rendered rendered
}

// New makes the Facts whole: what the injector renders is taken from the
// configuration that it is told.
func New(f Facts, c topology.Config) (Facts, error) {
	r, err := render(c)
	if err != nil {
		return Facts{}, fmt.Errorf("find out what injection renders: %w", err)
	}
	f.rendered = r
	return f, nil
}

// Objects are all policies and bindings, in the order of applying: a policy before
// its bindings.
func Objects(f Facts) []runtime.Object {
	var out []runtime.Object
	add := func(p *admissionv1.ValidatingAdmissionPolicy, actions []admissionv1.ValidationAction, selectors ...metav1.LabelSelector) {
		out = append(out, p)
		for i := range selectors {
			out = append(out, f.binding(p.Name, i, &selectors[i], actions))
		}
	}
	deny, warn := []admissionv1.ValidationAction{admissionv1.Deny}, []admissionv1.ValidationAction{admissionv1.Warn, admissionv1.Audit}
	own := metav1.LabelSelector{MatchLabels: map[string]string{nameLabel: f.Namespace}}
	add(f.label(), deny, metav1.LabelSelector{})
	add(f.networkPolicies(), deny, append(slices.Clone(f.Members), own)...)
	if f.Spec.Mode == v1alpha1.GuardOff {
		return out
	}
	pods := deny
	if f.Spec.Mode == v1alpha1.GuardWarn {
		pods = warn
	}
	add(f.exec(), pods, f.Members...)
	add(f.templates(), warn[:1], f.Members...)
	add(f.pods(), pods, f.Members...)
	return out
}

// Last is the name of the binding that Objects puts last: when it is there, all are.
func Last(topology string, mode v1alpha1.GuardMode, selectors int) string {
	if mode == v1alpha1.GuardOff {
		return revision.Binding(revision.GuardOf("policies", topology), selectors, topology)
	}
	return revision.Binding(revision.Guard(topology), selectors-1, topology)
}

// scope is what rules see; the first variables say where the pod is found.
func (f Facts) scope(where ...admissionv1.Variable) []admissionv1.Variable {
	ours := list([]string{inject.InitContainer, inject.ProxyContainer})
	return append(where, []admissionv1.Variable{
		{Name: "annotations", Expression: `variables.meta.?annotations.orValue({})`},
		{Name: "labels", Expression: `variables.meta.?labels.orValue({})`},
		{Name: "apps", Expression: `variables.creating ? variables.spec.containers : []`},
		{Name: "inits", Expression: `variables.creating ? variables.spec.?initContainers.orValue([]) : []`},
		{Name: "all", Expression: `variables.apps + variables.inits`},
		{Name: "proxies", Expression: `variables.all.filter(c, c.name in ` + ours + `)`},
		{Name: "others", Expression: `variables.all.filter(c, !(c.name in ` + ours + `)) + variables.debuggers`},
		{Name: "allowed", Expression: f.allowed()},
	}...)
}

// allowed is what the exemptions that have not ended allow the pod's account.
func (f Facts) allowed() string {
	by := map[string][]string{}
	for _, e := range f.Spec.Exemptions {
		if !f.Now.Before(e.Expires.Time) {
			continue
		}
		key := e.Namespace + "/" + e.ServiceAccount
		for _, r := range e.Allow {
			if !slices.Contains(by[key], string(r)) {
				by[key] = append(by[key], string(r))
			}
		}
	}
	var entries []string
	for _, key := range slices.Sorted(maps.Keys(by)) {
		entries = append(entries, quote(key)+`: `+list(by[key]))
	}
	if len(entries) == 0 {
		return `dyn([])`
	}
	return `{` + strings.Join(entries, `, `) + `}[?(request.namespace + '/' + variables.spec.?serviceAccountName.orValue('default'))].orValue([])`
}

// pods is the guard itself.
func (f Facts) pods() *admissionv1.ValidatingAdmissionPolicy {
	p := f.policy(revision.Guard(f.Topology), []admissionv1.NamedRuleWithOperations{
		resources("", "v1", []string{"pods"}, admissionv1.Create, admissionv1.Update),
		resources("", "v1", []string{"pods/ephemeralcontainers"}, admissionv1.Update),
	})
	p.Spec.Variables = f.scope([]admissionv1.Variable{
		{Name: "meta", Expression: `object.metadata`},
		{Name: "spec", Expression: `object.spec`},
		{Name: "creating", Expression: `request.operation == 'CREATE'`},
		{Name: "debuggers", Expression: `request.?subResource.orValue('') == 'ephemeralcontainers' ? dyn(object.spec.?ephemeralContainers.orValue([])) : dyn([])`},
	}...)
	f.apply(p, "")
	p.Spec.Variables = append(p.Spec.Variables, admissionv1.Variable{Name: "Proxy", Expression: f.rendered.offenders()})
	proxy := violation("Proxy", `size(variables.Proxy) == 0`,
		"a container that calls itself "+inject.ProxyContainer+" or "+inject.InitContainer+" must be what injection renders: remove it from the pod, and the proxy is added by itself")
	// After the key that changed the proxy, and before OptOut, which comes of another proxy too.
	p.Spec.Validations = slices.Insert(p.Spec.Validations, len(p.Spec.Validations)-1, proxy)
	p.Spec.Validations = append(p.Spec.Validations, f.images(), f.debugTarget())
	// Last: what will be refused for ever is better told than what lasts a moment.
	if f.Spec.Mode == v1alpha1.GuardEnforce {
		p.Spec.Validations = append(p.Spec.Validations, f.closedStart())
	}
	return p
}

// apply adds the rules.
func (f Facts) apply(p *admissionv1.ValidatingAdmissionPolicy, prefix string) {
	for _, r := range rules(f) {
		name := string(r.name)
		condition := `'` + name + `' in variables.allowed || size(variables.` + name + `) == 0`
		if !r.debug {
			condition = `!variables.creating || ` + condition
		}
		p.Spec.Variables = append(p.Spec.Variables, admissionv1.Variable{Name: name, Expression: r.offenders})
		p.Spec.Validations = append(p.Spec.Validations, violation(name, condition,
			prefix+r.fix+", or have the platform's owners add "+name+" to spec.egress.guard.exemptions of MeshTopology "+f.Topology))
	}
}

// violation is a validation whose message lists what the variable of its name holds.
func violation(name, condition, fix string) admissionv1.Validation {
	return admissionv1.Validation{
		Expression: condition, Reason: ptr.To(metav1.StatusReasonForbidden),
		Message:           name + ": " + fix,
		MessageExpression: quote(name+": ") + ` + variables.` + name + `.join(', ') + ` + quote(": "+fix),
	}
}

// closedStart keeps pods of a new member waiting until its wall stands.
func (f Facts) closedStart() admissionv1.Validation {
	return admissionv1.Validation{
		Expression: `!variables.creating || namespaceObject.metadata.?labels[?'` + v1alpha1.LabelEnforced + `'].orValue('') == ` + quote(f.Topology),
		Reason:     ptr.To(metav1.StatusReasonForbidden),
		Message: "ClosedStart: the egress policies of this namespace are not in place yet; controllers try again by themselves, a single pod is to be created again in a moment. " +
			"If it lasts, see: kubectl get meshmember " + f.Topology,
	}
}

// images keeps the image of a running pod's proxy: it is the one field of a
// container that can be changed.
func (f Facts) images() admissionv1.Validation {
	return admissionv1.Validation{
		Expression: `request.operation != 'UPDATE' || (object.spec.containers + object.spec.?initContainers.orValue([])).all(c, ` +
			`!(c.name in ` + list([]string{inject.InitContainer, inject.ProxyContainer}) + `) || c.image == ` + quote(f.rendered.sidecar.Image) +
			` || (oldObject.spec.containers + oldObject.spec.?initContainers.orValue([])).exists(o, o.name == c.name && o.image == c.image))`,
		Reason:  ptr.To(metav1.StatusReasonForbidden),
		Message: "ProxyImage: the proxy's image cannot be changed in a pod: restart its workload instead",
	}
}

// debugTarget keeps ephemeral containers out of the proxy's process namespace.
func (f Facts) debugTarget() admissionv1.Validation {
	ours := list([]string{inject.InitContainer, inject.ProxyContainer})
	return admissionv1.Validation{
		Expression: `variables.debuggers.all(c, !(c.?targetContainerName.orValue('') in ` + ours + `) && !(c.name in ` + ours + `))`,
		Reason:     ptr.To(metav1.StatusReasonForbidden),
		Message:    "DebugTarget: an ephemeral container cannot join or stand for the proxy: target a container of the application",
	}
}

// templates warns of workloads whose pods the guard would refuse.
func (f Facts) templates() *admissionv1.ValidatingAdmissionPolicy {
	apply := []admissionv1.OperationType{admissionv1.Create, admissionv1.Update}
	p := f.policy(revision.GuardOf("templates", f.Topology), []admissionv1.NamedRuleWithOperations{
		resources("apps", "v1", []string{"deployments", "statefulsets", "daemonsets", "replicasets"}, apply...),
		resources("batch", "v1", []string{"jobs", "cronjobs"}, apply...),
		resources("", "v1", []string{"replicationcontrollers"}, apply...),
	})
	p.Spec.FailurePolicy = ptr.To(admissionv1.Ignore)
	p.Spec.MatchConditions = []admissionv1.MatchCondition{
		{Name: "made-by-a-person", Expression: `!has(object.metadata.ownerReferences) || size(object.metadata.ownerReferences) == 0`},
	}
	p.Spec.Variables = f.scope([]admissionv1.Variable{
		{Name: "template", Expression: `has(dyn(object).spec.jobTemplate) ? dyn(object).spec.jobTemplate.spec.template : dyn(object).spec.template`},
		{Name: "meta", Expression: `variables.template.?metadata.orValue({})`},
		{Name: "spec", Expression: `variables.template.spec`},
		{Name: "creating", Expression: `true`},
		{Name: "debuggers", Expression: `dyn([])`},
	}...)
	f.apply(p, "pods of this template will be refused: ")
	return p
}

// exec keeps everybody out of running proxies.
func (f Facts) exec() *admissionv1.ValidatingAdmissionPolicy {
	p := f.policy(revision.GuardOf("exec", f.Topology), []admissionv1.NamedRuleWithOperations{
		resources("", "v1", []string{"pods/exec", "pods/attach"}, admissionv1.Connect),
	})
	p.Spec.Validations = []admissionv1.Validation{
		{
			Expression: `!(object.?container.orValue('') in ` + list([]string{inject.InitContainer, inject.ProxyContainer}) + `)`,
			Reason:     ptr.To(metav1.StatusReasonForbidden),
			Message:    "Exec: a process in the proxy's container is taken for the proxy and not redirected: use a container of the application, or isthmusctl to see the proxy's state",
		},
		{
			Expression: `object.?container.orValue('') != ''`, Reason: ptr.To(metav1.StatusReasonForbidden),
			Message: "Exec: name a container of the application (kubectl exec -c): without a name it could be the proxy",
		},
	}
	return p
}
