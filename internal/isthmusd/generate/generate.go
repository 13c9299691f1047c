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

// Names lists the resources of a type that the view's proxy should have, sorted,
// each once.
func (Builder) Names(v *snapshot.View, t resource.Type) ([]string, error) {
	g, ok := generatorFor(v, t)
	if !ok {
		return nil, nil
	}
	names := g.names(v)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Build makes one resource, or nil if there is none of that name. For a cluster
// it also returns the name of the endpoints that it asks for.
func (Builder) Build(v *snapshot.View, t resource.Type, name string) (proto.Message, []string, error) {
	g, ok := generatorFor(v, t)
	if !ok {
		return nil, nil, nil
	}
	m, services, err := g.build(v, name)
	if err != nil {
		return nil, nil, fmt.Errorf("build %s: %w", t.URL(), err)
	}
	return m, services, nil
}

// generator makes one type of resources for one role of proxies.
type generator struct {
	role  resolve.Role
	kind  resource.Type
	names func(*snapshot.View) []string
	build func(*snapshot.View, string) (proto.Message, []string, error)
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
func built[T any, M proto.Message](r resolver[T], translate func(T) (M, error)) func(*snapshot.View, string) (proto.Message, []string, error) {
	return func(v *snapshot.View, name string) (proto.Message, []string, error) {
		x := r(v, name)
		if x == nil {
			return nil, nil, nil
		}
		m, err := translate(*x)
		if err != nil {
			return nil, nil, err
		}
		return m, nil, nil
	}
}

func clusters(role resolve.Role, names func(*snapshot.View) []string, r resolver[ir.Cluster]) generator {
	return generator{role, resource.Cluster, names, func(v *snapshot.View, name string) (proto.Message, []string, error) {
		c := r(v, name)
		if c == nil {
			return nil, nil, nil
		}
		m, service, err := envoy.Cluster(*c)
		if err != nil || service == "" {
			return m, nil, err
		}
		return m, []string{service}, nil
	}}
}

func endpoints(role resolve.Role, names func(*snapshot.View) []string, r resolver[ir.Assignment]) generator {
	return generator{role, resource.Endpoint, names, built(r, envoy.Assignment)}
}

func listeners(role resolve.Role, names func(*snapshot.View) []string, r resolver[ir.Listener]) generator {
	return generator{role, resource.Listener, names, built(r, envoy.Listener)}
}

func routes(role resolve.Role, names func(*snapshot.View) []string, r resolver[ir.RouteConfig]) generator {
	return generator{role, resource.Route, names, built(r, envoy.RouteConfig)}
}

func secrets(role resolve.Role, names func(*snapshot.View) []string, r resolver[ir.Secret]) generator {
	return generator{role, resource.Secret, names, built(r, envoy.Secret)}
}
