// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"maps"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// delegated lists the HTTP routes of a VirtualService, with those of delegates
// in the place of the routes that name them. Delegates have no hosts and don't
// delegate further.
func (r *routing) delegated(vs *model.VirtualService) []httpRoute {
	var out []httpRoute
	for _, h := range vs.Spec.GetHttp() {
		d := h.GetDelegate()
		if d == nil {
			out = append(out, httpRoute{vs, h})
			continue
		}
		k := model.Key{Namespace: d.GetNamespace(), Name: d.GetName()}
		if k.Namespace == "" {
			k.Namespace = vs.Namespace
		}
		child := r.s.v.VirtualService(k)
		if child == nil || len(child.Spec.GetHosts()) > 0 ||
			!exported(child.Spec.GetExportTo(), r.s.v.Mesh().GetDefaultVirtualServiceExportTo(), child.Namespace, is(vs.Namespace)) {
			continue
		}
		for _, c := range child.Spec.GetHttp() {
			if c.GetDelegate() != nil {
				continue
			}
			if merged := under(h, c); merged != nil {
				out = append(out, httpRoute{child, merged})
			}
		}
	}
	return out
}

// under is a delegate's route below a root's: both conditions hold, and the
// root's settings count where it has any. Nil if no request can satisfy both.
func under(root, child *networking.HTTPRoute) *networking.HTTPRoute {
	out := proto.Clone(child).(*networking.HTTPRoute)
	if len(root.GetMatch()) > 0 {
		out.Match = nil
		children := child.GetMatch()
		if len(children) == 0 {
			children = []*networking.HTTPMatchRequest{{}}
		}
		for _, a := range root.GetMatch() {
			for _, b := range children {
				if m := both(a, b); m != nil {
					out.Match = append(out.Match, m)
				}
			}
		}
		if len(out.Match) == 0 {
			return nil
		}
	}
	if out.Timeout == nil {
		out.Timeout = root.GetTimeout()
	}
	if out.Retries == nil {
		out.Retries = root.GetRetries()
	}
	if out.Rewrite == nil {
		out.Rewrite = root.GetRewrite()
	}
	if out.Fault == nil {
		out.Fault = root.GetFault()
	}
	if out.CorsPolicy == nil {
		out.CorsPolicy = root.GetCorsPolicy()
	}
	if out.Headers == nil {
		out.Headers = root.GetHeaders()
	}
	return out
}

// both joins two matches, or returns nil where they exclude each other.
func both(root, child *networking.HTTPMatchRequest) *networking.HTTPMatchRequest {
	out := proto.Clone(child).(*networking.HTTPMatchRequest)
	ok := true
	pick := func(a, b *networking.StringMatch) *networking.StringMatch {
		if a == nil || b == nil {
			if a != nil {
				return a
			}
			return b
		}
		if m := narrower(a, b); m != nil {
			return m
		}
		ok = false
		return nil
	}
	out.Uri = pick(root.GetUri(), child.GetUri())
	out.Scheme = pick(root.GetScheme(), child.GetScheme())
	out.Method = pick(root.GetMethod(), child.GetMethod())
	out.Authority = pick(root.GetAuthority(), child.GetAuthority())
	out.Headers = union(child.GetHeaders(), root.GetHeaders())
	out.WithoutHeaders = union(child.GetWithoutHeaders(), root.GetWithoutHeaders())
	out.QueryParams = union(child.GetQueryParams(), root.GetQueryParams())
	out.SourceLabels = union(child.GetSourceLabels(), root.GetSourceLabels())
	out.IgnoreUriCase = root.GetIgnoreUriCase() || child.GetIgnoreUriCase()
	if root.GetPort() != 0 {
		ok = ok && (child.GetPort() == 0 || child.GetPort() == root.GetPort())
		out.Port = root.GetPort()
	}
	if len(out.Gateways) == 0 {
		out.Gateways = root.GetGateways()
	}
	if out.SourceNamespace == "" {
		out.SourceNamespace = root.GetSourceNamespace()
	}
	if root.GetName() != "" && out.Name != "" {
		out.Name = root.GetName() + "-" + out.Name
	}
	if !ok {
		return nil
	}
	return out
}

func union[V any](a, b map[string]V) map[string]V {
	if len(a)+len(b) == 0 {
		return nil
	}
	out := maps.Clone(a)
	if out == nil {
		out = map[string]V{}
	}
	maps.Copy(out, b)
	return out
}

// narrower is the match that implies the other, or nil.
func narrower(root, child *networking.StringMatch) *networking.StringMatch {
	switch {
	case proto.Equal(root, child):
		return child
	case root.GetPrefix() != "" && strings.HasPrefix(child.GetPrefix()+child.GetExact(), root.GetPrefix()):
		return child
	case child.GetPrefix() != "" && strings.HasPrefix(root.GetPrefix()+root.GetExact(), child.GetPrefix()):
		return root
	}
	return nil
}
