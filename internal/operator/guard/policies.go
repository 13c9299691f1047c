// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
)

// nameLabel is on every namespace, with its name.
const nameLabel = corev1.LabelMetadataName

// janitors are who deletes what is in a namespace that is being deleted, or what
// has lost its owner.
var janitors = []string{
	"system:serviceaccount:kube-system:namespace-controller",
	"system:serviceaccount:kube-system:generic-garbage-collector",
	"system:kube-controller-manager",
}

// networkPolicies keeps the wall as it is: ours are the operator's to change, and
// those of tenants, which add up with ours, open nothing but ways to members.
func (f Facts) networkPolicies() *admissionv1.ValidatingAdmissionPolicy {
	p := f.policy(revision.GuardOf("policies", f.Topology), []admissionv1.NamedRuleWithOperations{
		resources("networking.k8s.io", "v1", []string{"networkpolicies"}, admissionv1.Create, admissionv1.Update, admissionv1.Delete),
	})
	p.Spec.MatchConditions = []admissionv1.MatchCondition{
		{Name: "not-the-operator", Expression: `request.userInfo.username != ` + quote(f.Operator)},
	}
	ours := func(o string) string {
		return o + ` != null && ` + o + `.metadata.?labels[?'` + v1alpha1.LabelTopology + `'].hasValue()`
	}
	janitor := `request.operation == 'DELETE' && request.userInfo.username in ` + list(janitors)
	p.Spec.Variables = []admissionv1.Variable{
		{Name: "rules", Expression: `request.operation == 'DELETE' ? [] : object.spec.?egress.orValue([])`},
		{Name: "Rule", Expression: `variables.rules.filter(r, size(r.?to.orValue([])) == 0).map(r, 'a rule without "to"')`},
		{Name: "Peer", Expression: `variables.rules.map(r, r.?to.orValue([]).filter(p, !(` + f.toMembers() + `)))` +
			`.filter(l, size(l) > 0).map(l, has(l[0].ipBlock) ? 'ipBlock ' + l[0].ipBlock.cidr : 'a namespaceSelector that is not of members')`},
	}
	p.Spec.Validations = []admissionv1.Validation{
		{
			Expression: `(` + janitor + `) || !((` + ours("object") + `) || (` + ours("oldObject") + `))`,
			Reason:     ptr.To(metav1.StatusReasonForbidden),
			Message:    "Policy: NetworkPolicies with label " + v1alpha1.LabelTopology + " are the operator's: edit MeshTopology " + f.Topology + " (spec.egress.networkPolicy.allow, spec.egress.bypass) instead",
		},
		violation("Rule", `size(variables.Rule) == 0`, f.policyFix()),
		violation("Peer", `size(variables.Peer) == 0`, f.policyFix()),
	}
	return p
}

func (f Facts) policyFix() string {
	return "egress rules may only lead to members of MeshTopology " + f.Topology + ": name pods by podSelector, or members by a namespaceSelector with the labels that make them members (" +
		f.describePeers() + "); DNS and the egress gateway are open already; anything else is for the platform's owners to allow in spec.egress.networkPolicy.allow"
}

func (f Facts) describePeers() string {
	var out []string
	for i := range f.Peers {
		out = append(out, metav1.FormatLabelSelector(&f.Peers[i]))
	}
	return strings.Join(out, "; or ")
}

// toMembers is a CEL condition on peer p: it selects nothing but members. A
// selector is within another if it asks for at least as much.
func (f Facts) toMembers() string {
	within := []string{`!has(p.namespaceSelector)`, `p.namespaceSelector.?matchLabels[?'` + nameLabel + `'].orValue('') == request.namespace`}
	for i := range f.Peers {
		within = append(within, `(`+contained(&f.Peers[i])+`)`)
	}
	return `!has(p.ipBlock) && (` + strings.Join(within, ` || `) + `)`
}

// contained is a CEL condition: p.namespaceSelector asks for all that s asks for.
func contained(s *metav1.LabelSelector) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		out = append(out, has(k, metav1.LabelSelectorOpIn, []string{s.MatchLabels[k]}))
	}
	for _, e := range s.MatchExpressions {
		out = append(out, has(e.Key, e.Operator, e.Values))
	}
	return strings.Join(out, ` && `)
}

// has is a CEL condition: p.namespaceSelector has a requirement at least as strict.
func has(key string, op metav1.LabelSelectorOperator, values []string) string {
	label := `p.namespaceSelector.?matchLabels[?` + quote(key) + `]`
	some := func(condition string) string {
		return `p.namespaceSelector.?matchExpressions.orValue([]).exists(e, e.key == ` + quote(key) + ` && ` + condition + `)`
	}
	set := list(values)
	switch op {
	case metav1.LabelSelectorOpIn:
		return `((` + label + `.hasValue() && ` + label + `.value() in ` + set + `) || ` + some(`e.operator == 'In' && e.values.all(v, v in `+set+`)`) + `)`
	case metav1.LabelSelectorOpNotIn:
		return `((` + label + `.hasValue() && !(` + label + `.value() in ` + set + `)) || ` +
			some(`((e.operator == 'In' && !e.values.exists(v, v in `+set+`)) || (e.operator == 'NotIn' && `+set+`.all(v, v in e.values)))`) + `)`
	case metav1.LabelSelectorOpExists:
		return `(` + label + `.hasValue() || ` + some(`e.operator in ['Exists', 'In']`) + `)`
	}
	return some(`e.operator == 'DoesNotExist'`)
}

// label keeps the mark of an enforced namespace to the operator.
func (f Facts) label() *admissionv1.ValidatingAdmissionPolicy {
	p := f.policy(revision.GuardOf("enforced", f.Topology), []admissionv1.NamedRuleWithOperations{{
		RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			Rule: admissionv1.Rule{
				APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"namespaces", "namespaces/finalize", "namespaces/status"}, Scope: ptr.To(admissionv1.ClusterScope),
			},
		},
	}})
	marked := func(o string) string {
		return o + `.metadata.?labels[?'` + v1alpha1.LabelEnforced + `'].orValue('') == ` + quote(f.Topology)
	}
	p.Spec.MatchConditions = []admissionv1.MatchCondition{
		{Name: "the-mark-changes", Expression: `(` + marked("object") + `) != (oldObject != null && ` + marked("oldObject") + `)`},
	}
	p.Spec.Validations = []admissionv1.Validation{{
		Expression: `request.userInfo.username == ` + quote(f.Operator), Reason: ptr.To(metav1.StatusReasonForbidden),
		Message: "Enforced: label " + v1alpha1.LabelEnforced + " says that the wall of MeshTopology " + f.Topology + " stands in the namespace; only the operator writes it: leave it out",
	}}
	return p
}

func (f Facts) policy(name string, rules []admissionv1.NamedRuleWithOperations) *admissionv1.ValidatingAdmissionPolicy {
	return &admissionv1.ValidatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: ptr.To(admissionv1.Fail),
			MatchConstraints: &admissionv1.MatchResources{
				ResourceRules: rules, MatchPolicy: ptr.To(admissionv1.Equivalent),
				NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{},
			},
		},
	}
}

func (f Facts) binding(policy string, i int, namespaces *metav1.LabelSelector, actions []admissionv1.ValidationAction) *admissionv1.ValidatingAdmissionPolicyBinding {
	return &admissionv1.ValidatingAdmissionPolicyBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicyBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: revision.Binding(policy, i, f.Topology)},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy, ValidationActions: actions,
			MatchResources: &admissionv1.MatchResources{
				NamespaceSelector: namespaces, ObjectSelector: &metav1.LabelSelector{}, MatchPolicy: ptr.To(admissionv1.Equivalent),
			},
		},
	}
}

func resources(group, version string, resources []string, on ...admissionv1.OperationType) admissionv1.NamedRuleWithOperations {
	return admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
		Operations: on,
		Rule: admissionv1.Rule{
			APIGroups: []string{group}, APIVersions: []string{version}, Resources: resources, Scope: ptr.To(admissionv1.NamespacedScope),
		},
	}}
}
