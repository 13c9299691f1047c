// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package generate composes resolve and envoy into the catalog's Builder: for
// each kind of proxy and each type of resource, which names there are and how
// one is built. generators.go is the whole list.
package generate

import (
	"fmt"
	"slices"

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

// Names lists one part of the resources of a type that the view's proxy should
// have, sorted, each once.
func (Builder) Names(v *snapshot.View, t resource.Type, p resource.Part) ([]string, error) {
	g, ok := generatorFor(v, t)
	if !ok {
		return nil, nil
	}
	list := g.names
	if p == resource.Own {
		list = g.own
	}
	if list == nil {
		return nil, nil
	}
	names := list(v)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Build makes one resource, or nil if there is none of that name. For a cluster
// it also tells what endpoints it asks for and trusts.
func (Builder) Build(v *snapshot.View, t resource.Type, name string) (proto.Message, resource.Upstream, error) {
	g, ok := generatorFor(v, t)
	if !ok {
		return nil, resource.Upstream{}, nil
	}
	m, up, err := g.build(v, name)
	if err != nil {
		return nil, resource.Upstream{}, fmt.Errorf("build %s: %w", t.URL(), err)
	}
	return m, up, nil
}

// generator makes one type of resources for one role of proxies.
type generator struct {
	role  resolve.Role
	kind  resource.Type
	names func(*snapshot.View) []string
	build func(*snapshot.View, string) (proto.Message, resource.Upstream, error)
	// own lists what only this workload has; nil for nothing.
	own func(*snapshot.View) []string
}

// with adds what only this workload has.
func (g generator) with(own func(*snapshot.View) []string) generator {
	g.own = own
	return g
}

func generatorFor(v *snapshot.View, t resource.Type) (generator, bool) {
	role := resolve.RoleOf(v)
	for _, g := range generators() {
		if g.role == role && g.kind == t {
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

func clusters(role resolve.Role, names func(*snapshot.View) []string, r resolver[ir.Cluster]) generator {
	return generator{role: role, kind: resource.Cluster, names: names, build: func(v *snapshot.View, name string) (proto.Message, resource.Upstream, error) {
		c := r(v, name)
		if c == nil {
			return nil, resource.Upstream{}, nil
		}
		m, service, err := envoy.Cluster(*c)
		if err != nil || service == "" {
			return m, resource.Upstream{}, err
		}
		return m, resource.Upstream{ServiceName: service, Trusts: trusts(*c)}, nil
	}}
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

func endpoints(role resolve.Role, names func(*snapshot.View) []string, r resolver[ir.Assignment]) generator {
	return generator{role: role, kind: resource.Endpoint, names: names, build: built(r, envoy.Assignment)}
}

func listeners(role resolve.Role, names func(*snapshot.View) []string, r resolver[ir.Listener]) generator {
	return generator{role: role, kind: resource.Listener, names: names, build: built(r, envoy.Listener)}
}

func routes(role resolve.Role, names func(*snapshot.View) []string, r resolver[ir.RouteConfig]) generator {
	return generator{role: role, kind: resource.Route, names: names, build: built(r, envoy.RouteConfig)}
}

func secrets(role resolve.Role, names func(*snapshot.View) []string, r resolver[ir.Secret]) generator {
	return generator{role: role, kind: resource.Secret, names: names, build: built(r, envoy.Secret)}
}
