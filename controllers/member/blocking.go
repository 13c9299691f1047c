// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/analysis"
	"github.com/isthmus-mesh/isthmus/internal/operator/guard"
	"github.com/isthmus-mesh/isthmus/internal/operator/membership"
)

// walled tells whether the mesh's routes are those of a wall, up or about to be.
func (f *Facts) walled() bool { return len(f.Published.Allowance) > 0 }

// blocking names the pods that the wall would cut, or that the guard would refuse
// if they were created now. Exempt pods are neither.
func (f *Facts) blocking(s *v1alpha1.MeshMemberStatus) {
	if f.Judge == nil {
		return
	}
	for i := range f.Pods {
		p := &f.Pods[i]
		if p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		if why := f.wrong(p); len(why) > 0 {
			s.BlockingCount++
			s.Blocking = append(s.Blocking, p.Name+": "+strings.Join(why, ", "))
		}
	}
	s.Blocking = some(s.Blocking)
}

// wrong says what is wrong with a pod.
func (f *Facts) wrong(p *corev1.Pod) []string {
	verdict, err := f.Judge.Pod(p)
	if err != nil {
		return []string{err.Error()}
	}
	var why []string
	exempt := slices.Contains(verdict.Allowed, v1alpha1.RuleOptOut) || p.Spec.HostNetwork && slices.Contains(verdict.Allowed, v1alpha1.RuleHostNetwork)
	if !membership.Injected(p) && !exempt {
		why = append(why, "no proxy")
	}
	if f.Mesh.Spec.Egress.Guard.Mode == v1alpha1.GuardEnforce {
		for _, r := range verdict.Breaks {
			why = append(why, string(r))
		}
	}
	return why
}

// holes names what NetworkPolicies of others open beyond the allowance.
func (f *Facts) holes(s *v1alpha1.MeshMemberStatus) {
	c := analysis.Cluster{Allowance: f.Published.Allowance, Namespaces: f.Labels}
	for i := range f.Foreign {
		for _, h := range c.Holes(&f.Foreign[i]) {
			s.HolesCount++
			s.Holes = append(s.Holes, f.Foreign[i].Name+": "+h)
		}
	}
	s.Holes = some(s.Holes)
}

// some sorts a list and keeps what status has room for.
func some(list []string) []string {
	slices.Sort(list)
	if len(list) > examples {
		return list[:examples]
	}
	return list
}

// judges keeps one compiled judge for each mesh, while what it depends on stays.
type judges struct {
	mu    sync.Mutex
	known map[string]known
}

type known struct {
	facts string
	judge *guard.Judge
}

func (j *judges) of(f *Facts) (*guard.Judge, error) {
	facts := guard.Facts{
		Topology: f.Mesh.Name, Revision: f.Published.Revision, Namespace: f.Published.Namespace,
		Spec: v1alpha1.Guard{Exemptions: slices.DeleteFunc(slices.Clone(f.Mesh.Spec.Egress.Guard.Exemptions), func(e v1alpha1.Exemption) bool {
			return !f.Now.Before(e.Expires.Time)
		})},
	}
	key, err := json.Marshal([]any{facts, f.Published.Epoch})
	if err != nil {
		return nil, fmt.Errorf("compare facts: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if k := j.known[f.Mesh.Name]; k.facts == string(key) {
		return k.judge, nil
	}
	if facts, err = guard.New(facts, f.Published); err != nil {
		return nil, err
	}
	judge, err := guard.NewJudge(facts)
	if err != nil {
		return nil, err
	}
	if j.known == nil {
		j.known = map[string]known{}
	}
	j.known[f.Mesh.Name] = known{facts: string(key), judge: judge}
	return judge, nil
}
