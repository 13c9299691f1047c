// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package mutation

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
)

// weakened is a policy less one thing.
type weakened struct {
	what     string
	policy   *admissionv1.ValidatingAdmissionPolicy
	bindings []*admissionv1.ValidatingAdmissionPolicyBinding
}

// weaken takes each thing out of a policy, one at a time: bindings, resources and
// operations, conditions, variables, validations, and each operand of each of them.
func weaken(p *admissionv1.ValidatingAdmissionPolicy, bindings []*admissionv1.ValidatingAdmissionPolicyBinding) []weakened {
	var out []weakened
	for i, b := range bindings {
		out = append(out, weakened{"binding " + b.Name, p, slices.Delete(slices.Clone(bindings), i, i+1)})
	}
	change := func(what string, do func(*admissionv1.ValidatingAdmissionPolicySpec)) {
		copied := p.DeepCopy()
		do(&copied.Spec)
		out = append(out, weakened{p.Name + ": " + what, copied, bindings})
	}
	for i, r := range p.Spec.MatchConstraints.ResourceRules {
		for j, name := range r.Resources {
			change("resource "+name, func(s *admissionv1.ValidatingAdmissionPolicySpec) {
				l := &s.MatchConstraints.ResourceRules[i].Resources
				*l = slices.Delete(*l, j, j+1)
			})
		}
		for j, op := range r.Operations {
			change(fmt.Sprintf("operation %s on %v", op, r.Resources), func(s *admissionv1.ValidatingAdmissionPolicySpec) {
				l := &s.MatchConstraints.ResourceRules[i].Operations
				*l = slices.Delete(*l, j, j+1)
			})
		}
	}
	for i, c := range p.Spec.MatchConditions {
		change("condition "+c.Name, func(s *admissionv1.ValidatingAdmissionPolicySpec) {
			s.MatchConditions = slices.Delete(s.MatchConditions, i, i+1)
		})
		for _, m := range rewritten(c.Expression) {
			change("condition "+c.Name+" as "+m, func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.MatchConditions[i].Expression = m })
		}
	}
	// Templates are judged by the text by which pods are: there each operand counts.
	pods := p.Spec.FailurePolicy != nil && *p.Spec.FailurePolicy == admissionv1.Fail
	for i, v := range p.Spec.Variables {
		for _, m := range operandsLess(v.Expression) {
			if !pods {
				break
			}
			change("variable "+v.Name+" as "+m, func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.Variables[i].Expression = m })
		}
	}
	for i, v := range p.Spec.Validations {
		name, _, _ := strings.Cut(v.Message, ": ")
		change("validation "+name, func(s *admissionv1.ValidatingAdmissionPolicySpec) {
			s.Validations = slices.Delete(s.Validations, i, i+1)
		})
		for j, m := range rewritten(v.Expression) {
			if !pods && j > 0 {
				break
			}
			change("validation "+name+" as "+m, func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.Validations[i].Expression = m })
		}
	}
	return out
}

// rewritten is a condition negated, and less each operand.
func rewritten(expression string) []string {
	return append([]string{"!(" + expression + ")"}, operandsLess(expression)...)
}

// operandsLess is the expression less one operand of "||", "&&" or "+", for each, at
// any depth.
func operandsLess(expression string) []string {
	var out []string
	for _, g := range groups(expression) {
		for i := range g.operands {
			if len(g.operands) == 1 {
				break
			}
			// The operator before goes too, or after the first.
			from, to := g.operands[i].from, g.operands[i].to
			if i > 0 {
				from = g.operands[i-1].to
			} else {
				to = g.operands[1].from
			}
			out = append(out, expression[:from]+expression[to:])
		}
	}
	return out
}

// span is a part of an expression.
type span struct{ from, to int }

// group is a sequence of operands in the same parentheses.
type group struct{ operands []span }

// groups finds the sequences. Commas, colons, question marks and lambdas part them.
func groups(expression string) []group {
	var done []group
	open := []*group{{}}
	starts := []int{0}
	end := func(i int) {
		g := open[len(open)-1]
		g.operands = append(g.operands, span{starts[len(starts)-1], i})
		done = append(done, *g)
		*g = group{}
	}
	quoted := byte(0)
	for i := 0; i < len(expression); i++ {
		c, rest := expression[i], expression[i:]
		switch {
		case quoted != 0 && c == '\\':
			i++
		case quoted != 0:
			if c == quoted {
				quoted = 0
			}
		case c == '\'' || c == '"':
			quoted = c
		case strings.ContainsRune("([{", rune(c)):
			open, starts = append(open, &group{}), append(starts, i+1)
		case strings.ContainsRune(")]}", rune(c)):
			end(i)
			open, starts = open[:len(open)-1], starts[:len(starts)-1]
		case strings.HasPrefix(rest, " || "), strings.HasPrefix(rest, " && "), strings.HasPrefix(rest, " + "):
			g := open[len(open)-1]
			g.operands = append(g.operands, span{starts[len(starts)-1], i})
			starts[len(starts)-1] = i + strings.Index(rest[1:], " ") + 2
		case strings.HasPrefix(rest, ", "), strings.HasPrefix(rest, " ? "), strings.HasPrefix(rest, " : "):
			end(i)
			starts[len(starts)-1] = i + strings.Index(rest[1:], " ") + 2
			if c == ',' {
				starts[len(starts)-1] = i + 2
			}
		}
	}
	end(len(expression))
	return done
}
