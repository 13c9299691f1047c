// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package mutation

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// admission is a request to the API server, as policies see it.
type admission struct {
	// resource with its subresource: "pods/exec".
	resource  string
	operation admissionv1.OperationType
	user      string
	namespace string
	// labels of the namespace, or of the object if that is a namespace.
	labels      map[string]string
	object, old map[string]any
}

// admitter is one ValidatingAdmissionPolicy with its bindings, compiled.
type admitter struct {
	policy    *admissionv1.ValidatingAdmissionPolicy
	bindings  []*admissionv1.ValidatingAdmissionPolicyBinding
	matches   []cel.Program
	variables []cel.Program
	checks    []check
}

type check struct {
	validation admissionv1.Validation
	condition  cel.Program
	message    cel.Program
}

// compiler compiles each expression once.
type compiler struct {
	env      *cel.Env
	programs map[string]cel.Program
}

// newCompiler knows what the guard's expressions use of the API server's libraries.
func newCompiler() (*compiler, error) {
	env, err := cel.NewEnv(cel.OptionalTypes(), ext.Strings(), cel.Variable("object", cel.DynType), cel.Variable("oldObject", cel.DynType),
		cel.Variable("request", cel.DynType), cel.Variable("namespaceObject", cel.DynType), cel.Variable("variables", cel.DynType))
	return &compiler{env, map[string]cel.Program{}}, err
}

func (c *compiler) compile(text string) (cel.Program, error) {
	if p := c.programs[text]; p != nil {
		return p, nil
	}
	ast, issues := c.env.Compile(text)
	if issues.Err() != nil {
		return nil, fmt.Errorf("%s: %w", text, issues.Err())
	}
	p, err := c.env.Program(ast)
	c.programs[text] = p
	return p, err
}

func newAdmitter(env *compiler, p *admissionv1.ValidatingAdmissionPolicy, bindings []*admissionv1.ValidatingAdmissionPolicyBinding) (*admitter, error) {
	a := &admitter{policy: p, bindings: bindings}
	var failed error
	compile := func(text string) cel.Program {
		program, err := env.compile(text)
		failed = errors.Join(failed, err)
		return program
	}
	for _, m := range p.Spec.MatchConditions {
		a.matches = append(a.matches, compile(m.Expression))
	}
	for _, v := range p.Spec.Variables {
		a.variables = append(a.variables, compile(v.Expression))
	}
	for _, v := range p.Spec.Validations {
		c := check{validation: v, condition: compile(v.Expression)}
		if v.MessageExpression != "" {
			c.message = compile(v.MessageExpression)
		}
		a.checks = append(a.checks, c)
	}
	return a, failed
}

// refusals are the messages with which the request is refused.
func (a *admitter) refusals(r admission) []string {
	if !a.constrains(r) || !a.bound(r) {
		return nil
	}
	values := map[string]any{}
	in := map[string]any{
		"object": null(r.object), "oldObject": null(r.old), "variables": values,
		"namespaceObject": map[string]any{"metadata": map[string]any{"name": r.namespace, "labels": r.labels}},
		"request":         r.request(),
	}
	for _, m := range a.matches {
		out, _, err := m.Eval(in)
		if err != nil && *a.policy.Spec.FailurePolicy == admissionv1.Fail {
			return []string{"error: " + err.Error()}
		}
		if err != nil || out == types.False {
			return nil
		}
	}
	for i, v := range a.variables {
		// What cannot be evaluated is missing, and fails whatever asks for it.
		if out, _, err := v.Eval(in); err == nil {
			values[a.policy.Spec.Variables[i].Name] = out
		}
	}
	var out []string
	for _, c := range a.checks {
		verdict, _, err := c.condition.Eval(in)
		switch {
		case err != nil:
			out = append(out, "error: "+err.Error())
		case verdict != types.True:
			out = append(out, c.says(in))
		}
	}
	return out
}

func (c check) says(in map[string]any) string {
	if c.message != nil {
		if out, _, err := c.message.Eval(in); err == nil {
			return fmt.Sprint(out.Value())
		}
	}
	return c.validation.Message
}

func (r admission) request() map[string]any {
	_, sub, _ := strings.Cut(r.resource, "/")
	out := map[string]any{"operation": string(r.operation), "namespace": r.namespace, "userInfo": map[string]any{"username": r.user}}
	if sub != "" {
		out["subResource"] = sub
	}
	return out
}

func null(o map[string]any) any {
	if o == nil {
		return types.NullValue
	}
	return o
}

func (a *admitter) constrains(r admission) bool {
	return slices.ContainsFunc(a.policy.Spec.MatchConstraints.ResourceRules, func(rule admissionv1.NamedRuleWithOperations) bool {
		return slices.Contains(rule.Resources, r.resource) && slices.Contains(rule.Operations, r.operation)
	})
}

func (a *admitter) bound(r admission) bool {
	return slices.ContainsFunc(a.bindings, func(b *admissionv1.ValidatingAdmissionPolicyBinding) bool {
		s, err := metav1.LabelSelectorAsSelector(b.Spec.MatchResources.NamespaceSelector)
		return err == nil && s.Matches(labels.Set(r.labels)) && len(b.Spec.ValidationActions) > 0
	})
}
