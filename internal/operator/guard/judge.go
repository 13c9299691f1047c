// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// Judge tells of pods that are there already what the guard would refuse, were
// they created now. What their proxies look like is not asked: those of an earlier
// version differ, and are proxies all the same.
type Judge struct {
	variables []program
	rules     []v1alpha1.GuardRule
}

type program struct {
	name string
	cel.Program
}

// NewJudge compiles the rules.
func NewJudge(f Facts) (*Judge, error) {
	env, err := cel.NewEnv(cel.OptionalTypes(), ext.Strings(),
		cel.Variable("object", cel.DynType), cel.Variable("request", cel.DynType), cel.Variable("variables", cel.DynType))
	if err != nil {
		return nil, fmt.Errorf("make an environment for CEL: %w", err)
	}
	variables := f.scope([]admissionv1.Variable{
		{Name: "meta", Expression: `object.metadata`},
		{Name: "spec", Expression: `object.spec`},
		{Name: "creating", Expression: `true`},
		{Name: "debuggers", Expression: `dyn([])`},
	}...)
	j := &Judge{}
	for _, r := range rules(f) {
		j.rules = append(j.rules, r.name)
		variables = append(variables, admissionv1.Variable{Name: string(r.name), Expression: r.offenders})
	}
	for _, v := range variables {
		ast, issues := env.Compile(v.Expression)
		if issues.Err() != nil {
			return nil, fmt.Errorf("compile %s: %w", v.Name, issues.Err())
		}
		p, err := env.Program(ast)
		if err != nil {
			return nil, fmt.Errorf("compile %s: %w", v.Name, err)
		}
		j.variables = append(j.variables, program{name: v.Name, Program: p})
	}
	return j, nil
}

// Verdict is what the guard thinks of a pod.
type Verdict struct {
	// Breaks lists the rules that the pod breaks and is not exempt from.
	Breaks []v1alpha1.GuardRule
	// Allowed lists the rules that the pod's account is exempt from.
	Allowed []v1alpha1.GuardRule
}

// Pod judges one pod.
func (j *Judge) Pod(p *corev1.Pod) (Verdict, error) {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(p)
	if err != nil {
		return Verdict{}, fmt.Errorf("convert Pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	values := map[string]any{}
	in := map[string]any{"object": object, "request": map[string]any{"namespace": p.Namespace}, "variables": values}
	for _, v := range j.variables {
		out, _, err := v.Eval(in)
		if err != nil {
			return Verdict{}, fmt.Errorf("evaluate %s for Pod %s/%s: %w", v.name, p.Namespace, p.Name, err)
		}
		values[v.name] = out
	}
	var verdict Verdict
	allowed := setOf(values["allowed"])
	for _, r := range j.rules {
		switch {
		case allowed[string(r)]:
			verdict.Allowed = append(verdict.Allowed, r)
		case len(setOf(values[string(r)])) > 0:
			verdict.Breaks = append(verdict.Breaks, r)
		}
	}
	return verdict, nil
}

// setOf is the set of a CEL list of strings.
func setOf(v any) map[string]bool {
	out := map[string]bool{}
	l, ok := v.(traits.Lister)
	if !ok {
		return out
	}
	for it := l.Iterator(); it.HasNext() == types.True; {
		if s, ok := it.Next().Value().(string); ok {
			out[s] = true
		}
	}
	return out
}
