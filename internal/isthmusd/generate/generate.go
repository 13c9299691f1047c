// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package generate composes resolve and envoy into the catalog's Builder: for
// each kind of proxy and each type of resource, which names there are and how
// one is built. generators.go is the whole list.
package generate

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/envoy"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resolve"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// Builder makes the resources of proxies. It has no state.
type Builder struct{}

// New returns the Builder for a catalog.
func New() Builder { return Builder{} }

// Names lists a part of what the view's proxy should have, sorted, each once.
func (Builder) Names(v *snapshot.View, p resource.Part) ([]string, error) {
	g, ok := generatorFor(v, p)
	if !ok {
		return nil, nil
	}
	names := g.names(v)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Build makes one resource, or nil if there is none of that name. For a cluster
// it also tells what endpoints it asks for and trusts.
func (Builder) Build(v *snapshot.View, p resource.Part, name string) (proto.Message, resource.Upstream, error) {
	g, ok := generatorFor(v, p)
	if !ok {
		return nil, resource.Upstream{}, nil
	}
	m, up, err := g.build(v, name)
	if err != nil {
		return nil, resource.Upstream{}, fmt.Errorf("build %s: %w", p.Type().URL(), err)
	}
	return m, up, nil
}

// Compose joins the bytes of a route table and of its virtual hosts: repeated
// fields of two messages are joined by putting one behind the other.
// https://protobuf.dev/programming-guides/encoding/#last-one-wins
func (Builder) Compose(table *resource.Resource, hosts []*resource.Resource) []byte {
	const virtualHosts = protowire.Number(2) // of RouteConfiguration
	size := len(table.Body)
	for _, h := range hosts {
		size += protowire.SizeTag(virtualHosts) + protowire.SizeBytes(len(h.Body))
	}
	out := append(make([]byte, 0, size), table.Body...)
	for _, h := range hosts {
		out = protowire.AppendTag(out, virtualHosts, protowire.BytesType)
		out = protowire.AppendBytes(out, h.Body)
	}
	return out
}

// generator makes a part of what one role of proxies gets.
type generator struct {
	role  resolve.Role
	part  resource.Part
	names func(*snapshot.View) []string
	build func(*snapshot.View, string) (proto.Message, resource.Upstream, error)
}

func generatorFor(v *snapshot.View, p resource.Part) (generator, bool) {
	role := resolve.RoleOf(v)
	for _, g := range generators() {
		if g.role == role && g.part == p {
			return g, true
		}
	}
	return generator{}, false
}

type resolver[T any] func(*snapshot.View, string) *T

// built turns a resolver and a translator into a generator's build.
func built[T any, M proto.Message](r resolver[T], translate func(T) (M, error)) func(*snapshot.View, string) (proto.Message, resource.Upstream, error) {
	return func(v *snapshot.View, name string) (proto.Message, resource.Upstream, error) {
		x := r(v, name)
		if x == nil {
			return nil, resource.Upstream{}, nil
		}
		m, err := translate(*x)
		if err != nil {
			return nil, resource.Upstream{}, err
		}
		return m, resource.Upstream{}, nil
	}
}

func clusters(r resolver[ir.Cluster]) func(*snapshot.View, string) (proto.Message, resource.Upstream, error) {
	return func(v *snapshot.View, name string) (proto.Message, resource.Upstream, error) {
		c := r(v, name)
		if c == nil {
			return nil, resource.Upstream{}, nil
		}
		m, service, err := envoy.Cluster(*c)
		if err != nil || service == "" {
			return m, resource.Upstream{OnDemand: c.OnDemand}, err
		}
		return m, resource.Upstream{ServiceName: service, Trusts: trusts(*c), OnDemand: c.OnDemand}, nil
	}
}

// trusts lists the identities that the cluster takes its endpoints for.
func trusts(c ir.Cluster) []string {
	if c.TLS == nil || c.TLS.Server == nil {
		return nil
	}
	var out []string
	for _, san := range c.TLS.Server.SANs {
		if san.Match.Kind == ir.MatchExact {
			out = append(out, san.Match.Value)
		}
	}
	slices.Sort(out)
	return out
}
