// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package validate holds the rules for Istio's objects: for every fault the field,
// what is wrong with it, and what would be right. It is pure; isthmusd's webhook
// and `isthmusctl` share it.
//
// An object is refused for what cannot work or must not be (see Rules); for what
// works otherwise than the author probably thinks, it is accepted with a warning.
package validate

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"github.com/golang/protobuf/jsonpb" //nolint:staticcheck // what istio.io/api reads its own JSON with; protojson knows no "24h"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
)

// Object is one object of Istio's API groups, as far as the rules need it.
type Object struct {
	Kind      string
	Namespace string
	// Spec is the object's spec as JSON.
	Spec []byte
}

// Rules are what depends on the mesh. The zero value treats every namespace as a
// tenant's.
type Rules struct {
	// RootNamespace is the mesh's own: the rules for tenants do not hold there.
	RootNamespace string
	// Reserved are the addresses of pods, Services and API server: no external
	// endpoint of a tenant may lie there.
	Reserved []netip.Prefix
}

// tenant tells whether the rules for tenants hold in the namespace.
func (r Rules) tenant(namespace string) bool {
	return namespace != r.RootNamespace || r.RootNamespace == ""
}

// Problem is one fault.
type Problem struct {
	// Field as a path from the object's root, such as spec.hosts[0].
	Field string
	// Wrong says what is wrong.
	Wrong string
	// Right says what would be right; "" if Wrong says it all.
	Right string
}

func (p Problem) String() string {
	if p.Right == "" {
		return p.Field + ": " + p.Wrong
	}
	return p.Field + ": " + p.Wrong + "; " + p.Right
}

// Report is the outcome for one object.
type Report struct {
	// Refused is why the object must not be stored; empty if it may.
	Refused []Problem
	// Warned is what its author should know.
	Warned []Problem
}

// Err is the refusal as an error, or nil.
func (r Report) Err() error {
	if len(r.Refused) == 0 {
		return nil
	}
	lines := make([]string, 0, len(r.Refused))
	for _, p := range r.Refused {
		lines = append(lines, p.String())
	}
	return fmt.Errorf("%s", strings.Join(lines, "\n"))
}

// Check reads the spec and applies the rules of its kind. Kinds without rules are
// accepted. A field that is unknown to this version is a warning only: the API
// server has accepted it, and a newer API must not lock people out.
func Check(o Object, rules Rules) Report {
	spec := specOf(o.Kind)
	if spec == nil {
		return Report{}
	}
	var report Report
	root := checker{report: &report, path: "spec"}
	raw := o.Spec
	if len(raw) == 0 || string(raw) == "null" {
		raw = []byte("{}")
	}
	if err := read(raw, spec); err != nil {
		root.refuse(plain(err), "see the API reference of "+o.Kind)
		return report
	}
	warnUnknown(root, raw, spec.ProtoReflect().Descriptor())
	check(root, o.Namespace, spec, rules)
	return report
}

// Spec applies the rules to a spec that is read already.
func Spec(namespace string, spec proto.Message, rules Rules) Report {
	var report Report
	check(checker{report: &report, path: "spec"}, namespace, spec, rules)
	return report
}

// Kinds lists the kinds that have rules.
func Kinds() []string {
	return []string{"DestinationRule", "Gateway", "PeerAuthentication", "ServiceEntry", "Sidecar", "VirtualService", "WorkloadEntry"}
}

func specOf(kind string) proto.Message {
	switch kind {
	case "Gateway":
		return &networking.Gateway{}
	case "VirtualService":
		return &networking.VirtualService{}
	case "DestinationRule":
		return &networking.DestinationRule{}
	case "ServiceEntry":
		return &networking.ServiceEntry{}
	case "Sidecar":
		return &networking.Sidecar{}
	case "WorkloadEntry":
		return &networking.WorkloadEntry{}
	case "PeerAuthentication":
		return &security.PeerAuthentication{}
	}
	return nil
}

func check(c checker, namespace string, spec proto.Message, rules Rules) {
	switch s := spec.(type) {
	case *networking.Gateway:
		checkGateway(c, s)
	case *networking.VirtualService:
		checkVirtualService(c, s)
	case *networking.DestinationRule:
		checkDestinationRule(c, s)
		if rules.tenant(namespace) {
			warnCredentials(c, s)
		}
	case *networking.ServiceEntry:
		checkServiceEntry(c, s)
		if rules.tenant(namespace) {
			checkTenant(c, s, rules)
		}
	case *networking.WorkloadEntry:
		checkWorkloadEntry(c, s)
		if rules.tenant(namespace) {
			// Any ServiceEntry of the namespace may select it, one outside the mesh too.
			checkTenantEndpoint(c, s, rules.forbidden())
		}
	case *networking.Sidecar:
		checkSidecar(c, s)
	case *security.PeerAuthentication:
		checkPeerAuthentication(c, s)
	}
}

func read(raw []byte, into proto.Message) error {
	u := jsonpb.Unmarshaler{AllowUnknownFields: true}
	return u.Unmarshal(bytes.NewReader(raw), protoadapt.MessageV1Of(into))
}

// plain removes the non-breaking blank and the prefix of protobuf's messages.
func plain(err error) string {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(s, "proto: ")
}
