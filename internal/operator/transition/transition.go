// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package transition moves a mesh from one topology to another in phases. It is
// pure: a State and what was observed give the next State. The State is durable
// (ConfigMap isthmus-<name>) and written before anything is done for it.
//
//	tighter:  Preparing ─► Routing ─► Enforcing ─► settled
//	looser:   Relaxing  ─► Routing ─► Retiring  ─► settled
//
// What stands in each phase is told by Routes, Gateway and Walls.
package transition

import (
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// Kind is a topology.
type Kind = v1alpha1.TopologyKind

// State says how far a mesh is. The zero State is a mesh that was never there.
type State struct {
	// Active is the topology that is being left; when settled, the one that holds.
	Active Kind `json:"active"`
	// Target is what is being reached; the same as Active when settled.
	Target Kind `json:"target"`
	// Phase of the way from Active to Target; empty when settled.
	Phase string `json:"phase,omitempty"`
	// Epoch of the configuration that was published in this phase.
	Epoch string `json:"epoch,omitempty"`
	// Returning to the topology that held last, before going on to a third one.
	Returning bool `json:"returning,omitempty"`
	// Held is the topology that held last where that is not Active: the way is being
	// walked back.
	Held Kind `json:"held,omitempty"`
}

// Holds is the topology that held last.
func (s State) Holds() Kind {
	if s.Held != "" {
		return s.Held
	}
	return s.Active
}

// Observed is what phases wait for.
type Observed struct {
	// ControlPlaneReady and GatewayReady: isthmusd and the egress gateway serve.
	ControlPlaneReady, GatewayReady bool
	// Acknowledged: every proxy follows the configuration of State.Epoch.
	Acknowledged bool
	// Clear: no pod and no NetworkPolicy stands in the way of the walls.
	Clear bool
	// WallsUp: every member has its policies. WallsDown: none has, nor have gateways
	// and control plane.
	WallsUp, WallsDown bool
	// GatewayGone: no egress gateway is left.
	GatewayGone bool
}

// Settled tells whether no transition is under way.
func (s State) Settled() bool { return s.Phase == "" }

// Tightening tells whether the way leads to a tighter topology.
func (s State) Tightening() bool { return level(s.Target) > level(s.Active) }

// Routes is the topology that proxies follow in this phase.
func (s State) Routes() Kind {
	switch s.Phase {
	case "", v1alpha1.PhasePreparing, v1alpha1.PhaseRelaxing:
		return s.Active
	}
	return s.Target
}

// Gateway tells whether the egress gateway stands in this phase.
func (s State) Gateway() bool {
	if s.Phase == v1alpha1.PhaseRetiring {
		return s.Target == v1alpha1.EgressGateway
	}
	return s.Active == v1alpha1.EgressGateway || s.Target == v1alpha1.EgressGateway
}

// Walls tells whether the NetworkPolicies stand in this phase.
func (s State) Walls() bool {
	switch s.Phase {
	case "":
		return s.Active == v1alpha1.EgressGateway
	case v1alpha1.PhaseEnforcing:
		return s.Target == v1alpha1.EgressGateway
	}
	return false
}

// begin is the state of a mesh of which nothing is known: it is new, or its State
// was lost. It begins with what stands, so that no request is lost on the way, and
// raises walls only where some stand.
func begin(want Kind, o Observed) State {
	const loosest, gateway = v1alpha1.IngressOnly, v1alpha1.EgressGateway
	switch {
	// While any wall stood, in whichever phase, every proxy was sent through the gateway.
	case !o.WallsDown && want == gateway:
		return State{Active: loosest, Target: gateway, Phase: v1alpha1.PhaseEnforcing}
	case !o.WallsDown:
		return State{Active: gateway, Target: want, Phase: v1alpha1.PhaseRelaxing}
	case !o.GatewayGone && want != gateway:
		// Without walls every way works, and some proxies may still use the gateway.
		return State{Active: gateway, Target: want, Phase: v1alpha1.PhaseRouting}
	}
	return State{Active: loosest, Target: loosest}.toward(want)
}

// Next is the state after this one. It moves by at most one phase, so that each
// is written, and seen, before it is left.
func Next(s State, want Kind, o Observed) State {
	switch {
	case s.Active == "":
		return begin(want, o)
	case s.Settled() && want != s.Active:
		return s.toward(want)
	case !s.Settled() && want == s.Active && want != s.Target:
		return s.back()
	case !s.Settled() && want != s.Target && !s.Returning:
		turned := s.back()
		turned.Returning = true
		return turned
	case s.done(o):
		return s.advance()
	}
	return s
}

// toward begins the way from a settled state.
func (s State) toward(want Kind) State {
	if want == s.Active {
		return s
	}
	s.Target, s.Phase = want, v1alpha1.PhaseRelaxing
	if s.Tightening() {
		s.Phase = v1alpha1.PhasePreparing
	}
	return s
}

// back turns round: what was reached last is the target again. A third topology is
// approached from there, so only the six ways that are known are ever walked.
func (s State) back() State {
	turned := map[string]string{
		v1alpha1.PhasePreparing: v1alpha1.PhaseRetiring,
		v1alpha1.PhaseRouting:   v1alpha1.PhaseRouting,
		v1alpha1.PhaseEnforcing: v1alpha1.PhaseRelaxing,
		v1alpha1.PhaseRelaxing:  v1alpha1.PhaseRouting,
		v1alpha1.PhaseRetiring:  v1alpha1.PhasePreparing,
	}
	held := s.Holds()
	if held == s.Target {
		held = ""
	}
	return State{Active: s.Target, Target: s.Active, Phase: turned[s.Phase], Epoch: s.Epoch, Held: held}
}

// done tells whether what the phase waits for has come.
func (s State) done(o Observed) bool {
	switch s.Phase {
	case v1alpha1.PhasePreparing:
		return o.ControlPlaneReady && (o.GatewayReady || !s.Gateway())
	case v1alpha1.PhaseRouting:
		return o.Acknowledged && (o.Clear || !s.raises())
	case v1alpha1.PhaseEnforcing:
		return o.WallsUp || !s.Walls()
	case v1alpha1.PhaseRelaxing:
		return o.WallsDown
	case v1alpha1.PhaseRetiring:
		return o.GatewayGone || s.Gateway()
	}
	return false
}

// raises tells whether the next phase of the way raises the walls.
func (s State) raises() bool { return s.Tightening() && s.Target == v1alpha1.EgressGateway }

func (s State) advance() State {
	next := map[string]string{
		v1alpha1.PhasePreparing: v1alpha1.PhaseRouting,
		v1alpha1.PhaseRelaxing:  v1alpha1.PhaseRouting,
	}
	switch {
	case s.Phase == v1alpha1.PhaseRouting && s.Tightening():
		s.Phase = v1alpha1.PhaseEnforcing
	case s.Phase == v1alpha1.PhaseRouting:
		s.Phase = v1alpha1.PhaseRetiring
	default:
		s.Phase = next[s.Phase]
	}
	if s.Settled() {
		s.Active, s.Returning, s.Held = s.Target, false, ""
	}
	return s
}

func level(k Kind) int {
	return map[Kind]int{v1alpha1.IngressOnly: 1, v1alpha1.SidecarEgress: 2, v1alpha1.EgressGateway: 3}[k]
}

// Parse reads what Marshal wrote; nothing written is the zero State.
func Parse(text string) (State, error) {
	var s State
	if err := yaml.UnmarshalStrict([]byte(text), &s); err != nil {
		return State{}, fmt.Errorf("parse the state of a transition: %w", err)
	}
	return s, nil
}

// Marshal is the durable form.
func (s State) Marshal() (string, error) {
	b, err := yaml.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("marshal the state of a transition: %w", err)
	}
	return string(b), nil
}
