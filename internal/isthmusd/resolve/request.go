// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

func stringMatch(m *networking.StringMatch) ir.StringMatch {
	switch t := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return ir.StringMatch{Kind: ir.MatchExact, Value: t.Exact}
	case *networking.StringMatch_Prefix:
		return ir.StringMatch{Kind: ir.MatchPrefix, Value: t.Prefix}
	case *networking.StringMatch_Regex:
		if t.Regex == "*" {
			return ir.StringMatch{Kind: ir.MatchPresent}
		}
		return ir.StringMatch{Kind: ir.MatchRegex, Value: t.Regex}
	}
	return ir.StringMatch{Kind: ir.MatchPresent}
}

// requestMatch leaves out what was decided before: port, gateways and source.
func requestMatch(m *networking.HTTPMatchRequest) ir.RouteMatch {
	var out ir.RouteMatch
	if u := m.GetUri(); u != nil {
		out.Path = stringMatch(u)
		out.Path.IgnoreCase = m.GetIgnoreUriCase()
		if out.Path.Kind == ir.MatchPresent {
			out.Path = ir.StringMatch{}
		}
	}
	pseudo := []struct {
		name  string
		match *networking.StringMatch
	}{{":authority", m.GetAuthority()}, {":method", m.GetMethod()}, {":scheme", m.GetScheme()}}
	for _, p := range pseudo {
		if p.match != nil {
			out.Headers = append(out.Headers, ir.NamedMatch{Name: p.name, Match: stringMatch(p.match)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetHeaders())) {
		out.Headers = append(out.Headers, ir.NamedMatch{Name: headerName(name), Match: stringMatch(m.GetHeaders()[name])})
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetWithoutHeaders())) {
		out.Headers = append(out.Headers, ir.NamedMatch{
			Name: headerName(name), Match: stringMatch(m.GetWithoutHeaders()[name]), Invert: true,
		})
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetQueryParams())) {
		out.Query = append(out.Query, ir.NamedMatch{Name: name, Match: stringMatch(m.GetQueryParams()[name])})
	}
	return out
}

// headerName writes names as Envoy compares them.
func headerName(name string) string {
	name = strings.ToLower(name)
	switch name {
	case "authority", "method", "scheme", "path":
		return ":" + name
	case "host":
		return ":authority"
	}
	return name
}

func headerOps(h *networking.Headers) ir.HeaderOps {
	out := ir.HeaderOps{Request: headerChange(h.GetRequest()), Response: headerChange(h.GetResponse())}
	for _, values := range []map[string]string{out.Response.Add, out.Response.Set} {
		maps.DeleteFunc(values, func(k, _ string) bool { return untouchable(k) }) // no answer has a host
	}
	return out
}

func headerChange(o *networking.Headers_HeaderOperations) ir.HeaderChange {
	out := ir.HeaderChange{
		Add: maps.Clone(o.GetAdd()), Set: maps.Clone(o.GetSet()),
		Remove: slices.DeleteFunc(slices.Clone(o.GetRemove()), untouchable),
	}
	for _, values := range []map[string]string{out.Add, out.Set} {
		maps.DeleteFunc(values, func(k, _ string) bool { return untouchable(k) && headerName(k) != authorityHeader })
	}
	return out
}

const authorityHeader = ":authority"

// untouchable tells whether a header is not for routes to change. Envoy refuses
// the whole table for one such change; Istio leaves it out as well.
func untouchable(name string) bool {
	return strings.HasPrefix(name, ":") || strings.EqualFold(name, "host")
}

// takeAuthority removes a change of the host from the request's headers, for it
// is a rewrite, and returns it.
func takeAuthority(h *ir.HeaderOps) string {
	authority := ""
	for _, m := range []map[string]string{h.Request.Set, h.Request.Add} {
		for k, v := range m {
			if headerName(k) == authorityHeader {
				authority = v
				delete(m, k)
			}
		}
	}
	return authority
}

func rewrite(w *networking.HTTPRewrite, m *networking.HTTPMatchRequest) ir.Rewrite {
	if w == nil {
		return ir.Rewrite{}
	}
	out := ir.Rewrite{Authority: w.GetAuthority()}
	switch {
	case w.GetUriRegexRewrite() != nil:
		out.Regex = w.GetUriRegexRewrite().GetMatch()
		out.Substitution = w.GetUriRegexRewrite().GetRewrite()
	case w.GetUri() == "":
	case m.GetUri().GetRegex() != "":
		// It is text, in which no group of the match is meant.
		out.Regex, out.Substitution = m.GetUri().GetRegex(), strings.ReplaceAll(w.GetUri(), `\`, `\\`)
	default:
		out.Prefix, out.HasPrefix = w.GetUri(), true
	}
	return out
}

func redirect(h *networking.HTTPRedirect, port uint32) *ir.Redirect {
	out := &ir.Redirect{
		Code:   h.GetRedirectCode(),
		Scheme: h.GetScheme(),
		Host:   h.GetAuthority(),
		Path:   h.GetUri(),
	}
	if p, ok := h.GetRedirectPort().(*networking.HTTPRedirect_Port); ok {
		out.Port = p.Port
	}
	if h.GetDerivePort() == networking.HTTPRedirect_FROM_REQUEST_PORT && h.GetRedirectPort() != nil && out.Port == 0 {
		out.Port = port
	}
	if p := h.GetPrefixRewrite(); p != "" {
		out.Prefix, out.HasPrefix, out.Path = p, true, ""
	}
	// "%PREFIX()%" in a path means: replace only what has matched.
	if rest, ok := strings.CutPrefix(out.Path, "%PREFIX()%"); ok {
		out.Prefix, out.HasPrefix, out.Path = rest, true, ""
	}
	return out
}

func direct(d *networking.HTTPDirectResponse) *ir.Direct {
	out := &ir.Direct{Status: d.GetStatus()}
	switch b := d.GetBody().GetSpecifier().(type) {
	case *networking.HTTPBody_String_:
		out.Body = []byte(b.String_)
	case *networking.HTTPBody_Bytes:
		out.Body = b.Bytes
	}
	return out
}

// perMillion is a percentage in millionths; nil means all.
func perMillion(p *networking.Percent) uint32 {
	if p == nil {
		return 1_000_000
	}
	if !(p.GetValue() > 0) { // also what is not a number
		return 0
	}
	return uint32(min(p.GetValue(), 100) * 10_000)
}

func fault(f *networking.HTTPFaultInjection) *ir.Fault {
	if f == nil {
		return nil
	}
	out := &ir.Fault{}
	if d := f.GetDelay(); d != nil {
		out.Delay = d.GetFixedDelay().AsDuration()
		out.DelayShare = perMillion(d.GetPercentage())
		if d.GetPercentage() == nil && d.GetPercent() > 0 { //nolint:staticcheck // old manifests still use it
			out.DelayShare = uint32(d.GetPercent()) * 10_000 //nolint:staticcheck // see above
		}
	}
	if a := f.GetAbort(); a != nil {
		out.AbortShare = perMillion(a.GetPercentage())
		switch e := a.GetErrorType().(type) {
		case *networking.HTTPFaultInjection_Abort_HttpStatus:
			out.AbortStatus = uint32(e.HttpStatus)
		case *networking.HTTPFaultInjection_Abort_GrpcStatus:
			code := grpcCode(e.GrpcStatus)
			out.AbortGRPC = &code
		}
	}
	return out
}

// grpcCode reads the name of a gRPC status; unknown names are UNKNOWN.
func grpcCode(name string) uint32 {
	names := []string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
		"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
		"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	if i := slices.Index(names, strings.ToUpper(name)); i >= 0 {
		return uint32(i)
	}
	return 2
}

func cors(c *networking.CorsPolicy) *ir.CORS {
	if c == nil {
		return nil
	}
	out := &ir.CORS{
		Methods:       c.GetAllowMethods(),
		AllowHeaders:  c.GetAllowHeaders(),
		ExposeHeaders: c.GetExposeHeaders(),
	}
	for _, o := range c.GetAllowOrigins() {
		out.Origins = append(out.Origins, stringMatch(o))
	}
	for _, o := range c.GetAllowOrigin() { //nolint:staticcheck // old manifests still use it
		m := ir.StringMatch{Kind: ir.MatchExact, Value: o}
		if o == "*" {
			m = ir.StringMatch{Kind: ir.MatchPresent}
		}
		out.Origins = append(out.Origins, m)
	}
	if d := c.GetMaxAge(); d != nil {
		out.MaxAge = portString(uint32(max(d.GetSeconds(), 0)))
	}
	if b := c.GetAllowCredentials(); b != nil {
		v := b.GetValue()
		out.Credentials = &v
	}
	if u := c.GetUnmatchedPreflights(); u != networking.CorsPolicy_UNSPECIFIED {
		v := u == networking.CorsPolicy_FORWARD
		out.ForwardUnmatched = &v
	}
	return out
}

func (r *routing) mirrors(h *networking.HTTPRoute, ns string) []ir.Mirror {
	var out []ir.Mirror
	if m := h.GetMirror(); m != nil {
		share := perMillion(h.GetMirrorPercentage())
		if old := h.GetMirrorPercent(); h.GetMirrorPercentage() == nil && old != nil { //nolint:staticcheck // old manifests still use it
			share = old.GetValue() * 10_000
		}
		out = append(out, ir.Mirror{Cluster: r.cluster(m, ns), PerMillion: share})
	}
	for _, m := range h.GetMirrors() {
		out = append(out, ir.Mirror{Cluster: r.cluster(m.GetDestination(), ns), PerMillion: perMillion(m.GetPercentage())})
	}
	return slices.DeleteFunc(out, func(m ir.Mirror) bool { return m.PerMillion == 0 })
}
