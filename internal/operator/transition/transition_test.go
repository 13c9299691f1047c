// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package transition_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
)

const (
	in  = v1alpha1.IngressOnly
	car = v1alpha1.SidecarEgress
	gw  = v1alpha1.EgressGateway
)

// everything holds: each phase ends as soon as it is entered.
var everything = transition.Observed{
	ControlPlaneReady: true, GatewayReady: true, Acknowledged: true, Clear: true, WallsUp: true, WallsDown: true, GatewayGone: true,
}

// walk moves to the wanted topology and says what stood in each phase.
func walk(t *testing.T, s transition.State, want transition.Kind) (transition.State, []string) {
	t.Helper()
	var seen []string
	for range 20 {
		n := transition.Next(s, want, everything)
		if n == s {
			return s, seen
		}
		s = n
		seen = append(seen, describe(s))
	}
	t.Fatalf("no end after %v", seen)
	return s, nil
}

func describe(s transition.State) string {
	words := []string{s.Phase, "routes=" + string(s.Routes())}
	if s.Phase == "" {
		words[0] = "settled"
	}
	if s.Gateway() {
		words = append(words, "gateway")
	}
	if s.Walls() {
		words = append(words, "walls")
	}
	return strings.Join(words, " ")
}

func TestEveryPairIsWalkedInOrder(t *testing.T) {
	tests := map[string]struct {
		from, to transition.Kind
		want     []string
	}{
		"passing any host, to an allow-list": {in, car, []string{
			"Preparing routes=IngressOnly", "Routing routes=SidecarEgress", "Enforcing routes=SidecarEgress", "settled routes=SidecarEgress"}},
		"passing any host, to the gateway": {in, gw, []string{
			"Preparing routes=IngressOnly gateway", "Routing routes=EgressGateway gateway",
			"Enforcing routes=EgressGateway gateway walls", "settled routes=EgressGateway gateway walls"}},
		"an allow-list, to the gateway": {car, gw, []string{
			"Preparing routes=SidecarEgress gateway", "Routing routes=EgressGateway gateway",
			"Enforcing routes=EgressGateway gateway walls", "settled routes=EgressGateway gateway walls"}},
		"the gateway, to an allow-list": {gw, car, []string{
			"Relaxing routes=EgressGateway gateway", "Routing routes=SidecarEgress gateway",
			"Retiring routes=SidecarEgress", "settled routes=SidecarEgress"}},
		"the gateway, to passing any host": {gw, in, []string{
			"Relaxing routes=EgressGateway gateway", "Routing routes=IngressOnly gateway",
			"Retiring routes=IngressOnly", "settled routes=IngressOnly"}},
		"an allow-list, to passing any host": {car, in, []string{
			"Relaxing routes=SidecarEgress", "Routing routes=IngressOnly", "Retiring routes=IngressOnly", "settled routes=IngressOnly"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			end, got := walk(t, transition.State{Active: tt.from, Target: tt.from}, tt.to)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("phases (-want +got):\n%s", diff)
			}
			if end.Active != tt.to || !end.Settled() {
				t.Errorf("ended at %+v", end)
			}
		})
	}
}

func TestPhasesWaitForWhatTheyNeed(t *testing.T) {
	tests := map[string]struct {
		state transition.State
		lack  func(*transition.Observed)
	}{
		"Preparing waits for the control plane": {transition.State{Active: in, Target: car, Phase: v1alpha1.PhasePreparing},
			func(o *transition.Observed) { o.ControlPlaneReady = false }},
		"Preparing waits for the gateway": {transition.State{Active: in, Target: gw, Phase: v1alpha1.PhasePreparing},
			func(o *transition.Observed) { o.GatewayReady = false }},
		"Routing waits for every proxy": {transition.State{Active: in, Target: gw, Phase: v1alpha1.PhaseRouting},
			func(o *transition.Observed) { o.Acknowledged = false }},
		"Enforcing waits for every member": {transition.State{Active: in, Target: gw, Phase: v1alpha1.PhaseEnforcing},
			func(o *transition.Observed) { o.WallsUp = false }},
		"Relaxing waits until no policy is left": {transition.State{Active: gw, Target: in, Phase: v1alpha1.PhaseRelaxing},
			func(o *transition.Observed) { o.WallsDown = false }},
		"Retiring waits until the gateway is gone": {transition.State{Active: gw, Target: in, Phase: v1alpha1.PhaseRetiring},
			func(o *transition.Observed) { o.GatewayGone = false }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := everything
			tt.lack(&o)
			if n := transition.Next(tt.state, tt.state.Target, o); n != tt.state {
				t.Errorf("went on to %+v", n)
			}
			if n := transition.Next(tt.state, tt.state.Target, everything); n == tt.state {
				t.Errorf("stayed")
			}
		})
	}
}

func TestLostStateBeginsWithWhatStands(t *testing.T) {
	const relaxing, routing, preparing, enforcing = v1alpha1.PhaseRelaxing, v1alpha1.PhaseRouting, v1alpha1.PhasePreparing, v1alpha1.PhaseEnforcing
	nothing := transition.Observed{WallsDown: true, GatewayGone: true}
	gateway := transition.Observed{WallsDown: true}
	walls := transition.Observed{}
	tests := map[string]struct {
		stands transition.Observed
		want   transition.Kind
		begins transition.State
	}{
		"nothing, to the ingress":      {nothing, in, transition.State{Active: in, Target: in}},
		"nothing, to the sidecars":     {nothing, car, transition.State{Active: in, Target: car, Phase: preparing}},
		"nothing, to the gateway":      {nothing, gw, transition.State{Active: in, Target: gw, Phase: preparing}},
		"the gateway, to the ingress":  {gateway, in, transition.State{Active: gw, Target: in, Phase: routing}},
		"the gateway, to the sidecars": {gateway, car, transition.State{Active: gw, Target: car, Phase: routing}},
		"the gateway, to itself":       {gateway, gw, transition.State{Active: in, Target: gw, Phase: preparing}},
		"walls, to the ingress":        {walls, in, transition.State{Active: gw, Target: in, Phase: relaxing}},
		"walls, to the sidecars":       {walls, car, transition.State{Active: gw, Target: car, Phase: relaxing}},
		"walls, to themselves":         {walls, gw, transition.State{Active: in, Target: gw, Phase: enforcing}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := transition.Next(transition.State{}, tt.want, tt.stands)
			if s != tt.begins {
				t.Errorf("began with %s", describe(s))
			}
			check(t, s)
			if end, _ := walk(t, s, tt.want); end.Active != tt.want || !end.Settled() {
				t.Errorf("ended at %s", describe(end))
			}
		})
	}
}

// From any state, towards any topology, changing one's mind at any time: the way
// ends where it should, walls never stand without gateway and routes through it.
func TestAnyChangeOfMindEndsWell(t *testing.T) {
	kinds := []transition.Kind{in, car, gw}
	for _, from := range kinds {
		for _, first := range kinds {
			for _, second := range kinds {
				for turn := range 5 {
					s := transition.State{Active: from, Target: from}
					for range turn {
						s = transition.Next(s, first, everything)
						check(t, s)
					}
					end, _ := walk(t, s, second)
					if end.Active != second || !end.Settled() {
						t.Errorf("%s, then %s, after %d steps %s: ended at %+v", from, first, turn, second, end)
					}
				}
			}
		}
	}
}

func check(t *testing.T, s transition.State) {
	t.Helper()
	if s.Walls() && (!s.Gateway() || s.Routes() != gw) {
		t.Errorf("walls without a way: %+v", s)
	}
	if s.Routes() == gw && !s.Gateway() {
		t.Errorf("routes through a gateway that is not there: %+v", s)
	}
}

func TestStateSurvivesWriting(t *testing.T) {
	want := transition.State{Active: in, Target: gw, Phase: v1alpha1.PhaseRouting, Epoch: "e1"}
	text, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := transition.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
