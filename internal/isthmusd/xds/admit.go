// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// podWait is how long a stream waits for its own Pod to be seen: a proxy may be
// faster than our watch.
const podWait = 2 * time.Second

// podPoll is how often it looks: a new Pod that changes no proxy's configuration
// is not announced.
const podPoll = 50 * time.Millisecond

// check compares what a node claims with what its caller proved. Anonymous
// callers (plaintext on loopback) are taken at their word.
func check(claim *model.Proxy, caller authn.Caller) error {
	if !caller.Verified() {
		return nil
	}
	id := caller.Identity
	if claim.Namespace != id.Namespace {
		return status.Errorf(codes.PermissionDenied, "%s may not be node %q: namespace differs", id, claim.ID)
	}
	if claim.ServiceAccount != "" && claim.ServiceAccount != id.ServiceAccount {
		return status.Errorf(codes.PermissionDenied, "%s may not be node %q: service account differs", id, claim.ID)
	}
	if caller.Pod != "" && caller.Pod != claim.Name {
		return status.Errorf(codes.PermissionDenied, "token of pod %s may not be node %q", caller.Pod, claim.ID)
	}
	return nil
}

// enrich returns the proxy as its verified Pod describes it. The node's word
// stands only for what a Pod does not tell: versions, interception, locality
// when the Pod's node has none.
func enrich(claim *model.Proxy, caller authn.Caller, pod *model.Workload) (*model.Proxy, error) {
	p := *claim
	if caller.Verified() {
		p.ServiceAccount = caller.Identity.ServiceAccount
	}
	if pod == nil {
		return &p, nil
	}
	if caller.Verified() && pod.ServiceAccount != "" && pod.ServiceAccount != caller.Identity.ServiceAccount {
		return nil, status.Errorf(codes.PermissionDenied, "%s may not be node %q: pod runs as another account", caller.Identity, claim.ID)
	}
	p.Labels, p.Ports = pod.Labels, pod.Ports
	if pod.ServiceAccount != "" {
		p.ServiceAccount = pod.ServiceAccount
	}
	if len(pod.IPs) > 0 {
		p.IPs = pod.IPs
	}
	if pod.Node != "" {
		p.Node = pod.Node
	}
	if pod.Locality != "" {
		p.Locality = pod.Locality
	}
	if pod.Network != "" {
		p.Network = pod.Network
	}
	return &p, nil
}

// admit opens a stream: who is calling, who it claims to be, and the two agree.
func (s *stream) admit(ctx context.Context, node *core.Node) error {
	if !s.server.o.Source.Ready() {
		return status.Error(codes.Unavailable, "not every source has synced yet")
	}
	claim, err := parseNode(node)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	claim.Delta = s.protocol == Delta
	claim.HostsApart = claim.HostsApart && claim.Delta
	claim.OnDemand = claim.OnDemand && claim.Delta
	if err := check(claim, s.caller); err != nil {
		return err
	}
	s.claim = claim
	return s.findPod(ctx)
}

// findPod waits a moment for the Pod to appear, and refuses a verified caller
// whose Pod does not exist: it is gone, and so is its right to configuration.
func (s *stream) findPod(ctx context.Context) error {
	deadline := s.server.o.Clock.Now().Add(podWait)
	retry := s.server.o.Clock.NewTicker(podPoll)
	defer retry.Stop()
	for {
		pod := s.pod()
		if pod != nil || s.server.o.Pods == nil || !s.caller.Verified() {
			return s.become(pod)
		}
		if !s.server.o.Clock.Now().Before(deadline) {
			return status.Errorf(codes.Unavailable, "pod %s/%s is not known", s.claim.Namespace, s.claim.Name)
		}
		select {
		case <-s.notify:
		case <-retry.C():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pod is the proxy's Pod as of now, or nil.
func (s *stream) pod() *model.Workload {
	if s.server.o.Pods == nil {
		return nil
	}
	return s.server.o.Pods.Pod(model.Key{Namespace: s.claim.Namespace, Name: s.claim.Name})
}

// become takes over what the Pod says; called again when it is relabelled.
func (s *stream) become(pod *model.Workload) error {
	p, err := enrich(s.claim, s.caller, pod)
	if err != nil {
		return err
	}
	s.workload, s.proxy = pod, p
	return nil
}

// maySeeSecret tells whether a secret may go to this proxy: a verified gateway,
// and a secret of its own namespace. Names are kubernetes://name,
// kubernetes://namespace/name or kubernetes-gateway://namespace/name; what begins
// with egress:// was chosen for this very gateway.
func (s *stream) maySeeSecret(name string) bool {
	if !s.caller.Verified() || s.proxy.Type != router {
		return false
	}
	scheme, rest, ok := strings.Cut(name, "://")
	if scheme == "egress" {
		// Only the egress gateway's state has any, see resolve.EgressSecrets.
		return ok
	}
	if !ok || (scheme != "kubernetes" && scheme != "kubernetes-gateway") {
		return false
	}
	namespace, _, qualified := strings.Cut(rest, "/")
	return !qualified || namespace == s.proxy.Namespace
}
