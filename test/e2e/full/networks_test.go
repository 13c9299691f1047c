// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package full

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/journey"
)

// The journey of EgressGateway runs on networks that differ in what Kubernetes'
// conformance leaves open, so that the wall does not depend on one kind of
// enforcer; and on networks that enforce nothing, where every way out has to be
// seen, or the cases would prove nothing.

// network is one setting of the enforcer's switches.
type network struct {
	deny, established, blocks, translation, window string
	off                                            bool
}

// all is the smallest set in which each value of each switch meets each value of
// every other. The two that enforce nothing are each other's opposite; so those
// that enforce are four, and cover what two switches can be together with few
// exceptions.
var all = []network{
	{deny: "drop", established: "keep", blocks: "not-node", translation: "after", window: "0s"},
	{deny: "drop", established: "cut", blocks: "any", translation: "before", window: "500ms"},
	{deny: "reject", established: "keep", blocks: "any", translation: "before", window: "0s"},
	{deny: "reject", established: "cut", blocks: "not-node", translation: "after", window: "500ms"},
	{deny: "reject", established: "cut", blocks: "any", translation: "after", window: "0s", off: true},
	{deny: "drop", established: "keep", blocks: "not-node", translation: "before", window: "500ms", off: true},
}

func (n network) values() []string {
	return []string{"deny=" + n.deny, "established=" + n.established, "blocks=" + n.blocks, "translation=" + n.translation, "window=" + n.window, fmt.Sprintf("off=%t", n.off)}
}

func (n network) flags() []string {
	var out []string
	for _, v := range n.values() {
		out = append(out, "--np-"+v)
	}
	return out
}

func (n network) name() string { return strings.Join(n.values(), ",") }

func TestEveryPairOfSwitchesMeets(t *testing.T) {
	values := make([]map[string]bool, len(all[0].values()))
	met := map[[2]string]bool{}
	for _, n := range all {
		v := n.values()
		for i := range v {
			if values[i] == nil {
				values[i] = map[string]bool{}
			}
			values[i][v[i]] = true
			for j := range i {
				met[[2]string{v[j], v[i]}] = true
			}
		}
	}
	for i := range values {
		if len(values[i]) != 2 {
			t.Errorf("switch %d has the values %v, want both", i, values[i])
		}
		for j := range i {
			for a := range values[j] {
				for b := range values[i] {
					if !met[[2]string{a, b}] {
						t.Errorf("%s never meets %s", a, b)
					}
				}
			}
		}
	}
}

// byWall are the flows that nothing but the network stops. Where it enforces
// nothing they get out, and are seen.
var byWall = map[string]bool{
	"client -> raw address, UDP":   true,
	"process with uid 1337, TCP":   true,
	"process with uid 1337, UDP":   true,
	"excluded range by annotation": true,
	"excluded port by annotation":  true,
	"pod that opted out":           true,
	"another port of the gateway":  true,
	"bypass, by another pod":       true,
}

func TestWallOnEveryKindOfNetwork(t *testing.T) {
	for _, n := range all {
		t.Run(n.name(), func(t *testing.T) {
			env := start(t, "network", n.flags()...)
			if err := env.SwitchTo(t.Context(), journey.EgressGateway); err != nil {
				t.Fatal(err)
			}
			for _, f := range journey.Flows(journey.EgressGateway) {
				o := f.Probe(t.Context(), env)
				if want := !n.off || !byWall[f.Name]; o.OK != want {
					t.Errorf("%s: as told is %t, want %t: %s, got %s (known by: %s)", f.Name, o.OK, want, f.Expect, o.Seen, o.Known)
				}
			}
			if !n.off {
				denied(t, env, n)
			}
		})
	}
}

// denied looks at how a refusal is felt: at once, or by nothing at all.
func denied(t *testing.T, env *journey.Env, n network) {
	r, err := env.Call(t.Context(), journey.Shop, "opted-out", "tcp", env.Outside.Scene().Addresses["other"]+":9000", "--timeout", "5s")
	if err != nil {
		t.Fatal(err)
	}
	timeout := strings.Contains(r.Error, "timeout") || strings.Contains(r.Error, "deadline")
	if timeout != (n.deny == "drop") {
		t.Errorf("a network that says %s was felt as %q", n.deny, r.Error)
	}
}
