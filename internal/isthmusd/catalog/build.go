// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// translatorVersion salts every content hash. Change it when equal bytes must be
// sent again, for instance because they mean something else to a proxy.
const translatorVersion = "isthmus-1"

// build runs the Builder once. On failure the variant carries what last had,
// together with what was read, so that it's tried again when that changes.
func (c *Catalog) build(it item, p *model.Proxy, last *variant) (*variant, error) {
	v := &variant{item: it, users: map[*shelf]struct{}{}}
	var rec snapshot.Record
	err := c.run(v, c.snap.View(p, &rec))
	var values []string
	v.attributes, values = rec.Attributes()
	v.values = joinValues(values)
	v.reads = rec.Reads()
	c.Metrics.Builds.Inc()
	if err == nil {
		delete(c.problems, it)
		return v, nil
	}
	c.problems[it] = err
	c.Metrics.Failures.Inc()
	c.Log.Error("cannot build resource, the last good one stays",
		"type", it.part.Type().URL(), "name", it.name, "proxy", p.ID, "error", err)
	if last != nil {
		v.resource, v.names = last.resource, last.names
	}
	return v, err
}

func joinValues(values []string) string {
	var b strings.Builder
	for _, s := range values {
		b.WriteString(s)
		b.WriteByte(0)
	}
	return b.String()
}

// run turns a panic of the translator into an error: one object that it cannot
// stomach must not take the control plane from everybody else.
func (c *Catalog) run(v *variant, view *snapshot.View) (err error) {
	defer func() {
		if r := recover(); r != nil {
			c.Log.Error("translator panicked", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("translator panicked: %v", r)
		}
	}()
	if v.name == "" {
		names, err := c.Builder.Names(view, v.part)
		v.names = distinct(names)
		return err
	}
	m, up, err := c.Builder.Build(view, v.part, v.name)
	if err != nil || m == nil {
		return err
	}
	v.resource, err = c.seal(v.item, m, up)
	return err
}

// distinct drops empty and repeated names.
func distinct(names []string) []string {
	out := slices.Clone(names)
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) > 0 && out[0] == "" {
		out = out[1:]
	}
	return out
}

// seal validates a message by Envoy's own rules and makes its bytes and version.
func (c *Catalog) seal(it item, m proto.Message, up resource.Upstream) (*resource.Resource, error) {
	if err := errors.Join(c.checker.check(m), overlaps(m)); err != nil {
		return nil, fmt.Errorf("validate %s: %w", it.name, err)
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %s: %w", it.name, err)
	}
	table, _ := m.(*route.RouteConfiguration)
	return &resource.Resource{
		Type: it.part.Type(), Name: it.name, Body: body, Version: version(it, body), Upstream: up,
		HostsApart: table.GetVhds() != nil, Mirrors: mirrors(m),
	}, nil
}

// mirrors are the clusters to which a table or a virtual host copies requests.
func mirrors(m proto.Message) []string {
	var hosts []*route.VirtualHost
	switch m := m.(type) {
	case *route.RouteConfiguration:
		hosts = m.VirtualHosts
	case *route.VirtualHost:
		hosts = []*route.VirtualHost{m}
	}
	var out []string
	for _, h := range hosts {
		for _, r := range h.Routes {
			for _, to := range r.GetRoute().GetRequestMirrorPolicies() {
				out = append(out, to.Cluster)
			}
		}
	}
	return out
}

func version(it item, body []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	for _, s := range []string{translatorVersion, it.part.Type().URL(), it.name} {
		_, _ = d.WriteString(s) // never fails
		_, _ = d.Write([]byte{0})
	}
	_, _ = d.Write(body)
	return d.Sum64()
}

func equalContent(a, b *resource.Resource) bool {
	return a != nil && b != nil && a.Version == b.Version && a.ServiceName == b.ServiceName && a.OnDemand == b.OnDemand &&
		len(a.Body) == len(b.Body) && string(a.Body) == string(b.Body)
}

func sortProblems(ps []Problem) {
	slices.SortFunc(ps, func(a, b Problem) int {
		return strings.Compare(a.Type+"\x00"+a.Name, b.Type+"\x00"+b.Name)
	})
}
