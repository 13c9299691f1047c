// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// defaultTimeout is Envoy's for routes that give none.
const defaultTimeout = 15 * time.Second

// router is the last filter: it does what the route says.
func (x *run) router(at chosen) error {
	switch {
	case at.table == nil:
		x.answer(404, "no routes yet")
		return nil
	case at.host == nil:
		x.answer(404, "no virtual host")
		return nil
	case x.mustUpgrade(at.host):
		x.answer(301, "the host wants TLS")
		x.out.Location = "https://" + x.req.Authority + x.req.Path
		return nil
	case at.route == nil:
		x.answer(404, "no route matches")
		return nil
	}
	switch a := at.route.GetAction().(type) {
	case *routev3.Route_Route:
		return x.route(at, a.Route)
	case *routev3.Route_Redirect:
		x.redirect(a.Redirect, at.route.GetMatch())
		return nil
	case *routev3.Route_DirectResponse:
		x.answer(int(a.DirectResponse.GetStatus()), "direct response of route %q", at.route.Name)
		return nil
	}
	return notModelled("route action %T", at.route.GetAction())
}

func (x *run) redirect(r *routev3.RedirectAction, m *routev3.RouteMatch) {
	scheme := x.scheme()
	switch s := r.GetSchemeRewriteSpecifier().(type) {
	case *routev3.RedirectAction_HttpsRedirect:
		if s.HttpsRedirect {
			scheme = "https"
		}
	case *routev3.RedirectAction_SchemeRedirect:
		scheme = s.SchemeRedirect
	}
	host := x.req.Authority
	if r.GetHostRedirect() != "" {
		host = r.GetHostRedirect()
	}
	if n := r.GetPortRedirect(); n != 0 {
		host = withoutPort(host) + ":" + strconv.Itoa(int(n))
	}
	path, query := cutQuery(x.req.Path)
	switch p := r.GetPathRewriteSpecifier().(type) {
	case *routev3.RedirectAction_PathRedirect:
		path = p.PathRedirect
	case *routev3.RedirectAction_PrefixRewrite:
		path = p.PrefixRewrite + strings.TrimPrefix(path, matchedPrefix(m, path))
	case *routev3.RedirectAction_RegexRewrite:
		path = substitute(p.RegexRewrite.GetPattern().GetRegex(), path, p.RegexRewrite.GetSubstitution())
	}
	if r.GetStripQuery() {
		query = ""
	}
	status := map[routev3.RedirectAction_RedirectResponseCode]int{
		routev3.RedirectAction_FOUND: http.StatusFound, routev3.RedirectAction_SEE_OTHER: http.StatusSeeOther,
		routev3.RedirectAction_TEMPORARY_REDIRECT: http.StatusTemporaryRedirect,
		routev3.RedirectAction_PERMANENT_REDIRECT: http.StatusPermanentRedirect,
	}[r.GetResponseCode()]
	if status == 0 {
		status = http.StatusMovedPermanently
	}
	x.out.Location = scheme + "://" + host + path + query
	x.answer(status, "redirect")
}

// matchedPrefix is the part of the path that a rewrite replaces.
func matchedPrefix(m *routev3.RouteMatch, path string) string {
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		return path[:min(len(p.Prefix), len(path))]
	case *routev3.RouteMatch_PathSeparatedPrefix:
		return path[:min(len(p.PathSeparatedPrefix), len(path))]
	}
	return path
}

// backreference is how Envoy writes a group in a substitution, or a backslash.
var backreference = regexp.MustCompile(`\\(\d|\\)`)

// substitute leaves the text alone where a group is meant that is not there.
func substitute(pattern, text, with string) string {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return text
	}
	missing := false
	with = backreference.ReplaceAllStringFunc(strings.ReplaceAll(with, "$", "$$"), func(s string) string {
		if s[1] == '\\' {
			return s[1:]
		}
		missing = missing || int(s[1]-'0') > re.NumSubexp()
		return "${" + s[1:] + "}"
	})
	if missing {
		return text
	}
	return re.ReplaceAllString(text, with)
}

// route forwards: which cluster, and what is changed on the way.
func (x *run) route(at chosen, a *routev3.RouteAction) error {
	if err := x.rewrite(at, a); err != nil {
		return err
	}
	x.limits(at, a)
	x.endTunnel(a)
	for _, p := range a.GetRequestMirrorPolicies() {
		if p.GetRuntimeFraction() == nil || p.GetRuntimeFraction().GetDefaultValue().GetNumerator() > 0 {
			x.out.Mirrors = append(x.out.Mirrors, p.GetCluster())
		}
	}
	cluster, err := x.cluster(a)
	if err != nil {
		return err
	}
	if x.config.clusters[cluster] == nil {
		status := http.StatusServiceUnavailable
		if a.GetClusterNotFoundResponseCode() == routev3.RouteAction_NOT_FOUND {
			status = http.StatusNotFound
		}
		x.out.Cluster = cluster
		x.answer(status, "there is no cluster %q", cluster)
		return nil
	}
	return x.forward(cluster, a.GetMetadataMatch())
}

func (x *run) cluster(a *routev3.RouteAction) (string, error) {
	switch c := a.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		return c.Cluster, nil
	case *routev3.RouteAction_ClusterHeader:
		return x.req.first(c.ClusterHeader), nil
	case *routev3.RouteAction_WeightedClusters:
		var weights []uint64
		for _, w := range c.WeightedClusters.GetClusters() {
			weights = append(weights, uint64(w.GetWeight().GetValue()))
		}
		w := c.WeightedClusters.GetClusters()[x.dice.choose(weights)]
		x.say("cluster %s by weight %d", w.GetName(), w.GetWeight().GetValue())
		x.changeHeaders(w.GetRequestHeadersToAdd(), w.GetRequestHeadersToRemove())
		if host := w.GetHostRewriteLiteral(); host != "" {
			x.req.Authority = host
		}
		return w.GetName(), nil
	}
	return "", notModelled("cluster by %T", a.GetClusterSpecifier())
}

// limits notes what bounds the request in time and tries.
func (x *run) limits(at chosen, a *routev3.RouteAction) {
	x.out.Timeout = defaultTimeout
	if t := a.GetTimeout(); t != nil {
		x.out.Timeout = t.AsDuration()
	}
	p := a.GetRetryPolicy()
	if p == nil {
		p = at.host.GetRetryPolicy()
	}
	if p == nil {
		return
	}
	x.out.Retries, x.out.RetryOn, x.out.RetryStatus = 1, p.GetRetryOn(), p.GetRetriableStatusCodes()
	if n := p.GetNumRetries(); n != nil {
		x.out.Retries = n.GetValue()
	}
	x.out.TryTimeout = p.GetPerTryTimeout().AsDuration()
}

// rewrite changes path, host and headers as the route says.
func (x *run) rewrite(at chosen, a *routev3.RouteAction) error {
	r := &x.req
	path, query := cutQuery(r.Path)
	switch {
	case a.GetPathRewritePolicy() != nil:
		return notModelled("a path rewrite policy")
	case a.GetPrefixRewrite() != "":
		r.Path = a.GetPrefixRewrite() + strings.TrimPrefix(path, matchedPrefix(at.route.GetMatch(), path)) + query
	case a.GetRegexRewrite() != nil:
		r.Path = substitute(a.GetRegexRewrite().GetPattern().GetRegex(), path, a.GetRegexRewrite().GetSubstitution()) + query
	}
	switch h := a.GetHostRewriteSpecifier().(type) {
	case *routev3.RouteAction_HostRewriteLiteral:
		r.Authority = h.HostRewriteLiteral
	case *routev3.RouteAction_HostRewriteHeader:
		if v := r.first(h.HostRewriteHeader); v != "" {
			r.Authority = v
		}
	case *routev3.RouteAction_AutoHostRewrite, nil:
	default:
		return notModelled("host rewrite %T", h)
	}
	x.changeHeaders(at.route.GetRequestHeadersToAdd(), at.route.GetRequestHeadersToRemove())
	x.changeHeaders(at.host.GetRequestHeadersToAdd(), at.host.GetRequestHeadersToRemove())
	x.changeHeaders(at.table.GetRequestHeadersToAdd(), at.table.GetRequestHeadersToRemove())
	return nil
}

func (x *run) changeHeaders(add []*corev3.HeaderValueOption, remove []string) {
	for _, name := range remove {
		delete(x.req.Headers, strings.ToLower(name))
	}
	for _, o := range add {
		name, value := strings.ToLower(o.GetHeader().GetKey()), o.GetHeader().GetValue()
		switch {
		case name == ":authority" || name == "host":
			x.req.Authority = value
		case name == ":path":
			x.req.Path = value
		case o.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			x.req.Headers[name] = []string{value}
		case o.GetAppendAction() == corev3.HeaderValueOption_ADD_IF_ABSENT && len(x.req.Headers[name]) > 0:
		default:
			x.req.Headers[name] = append(x.req.Headers[name], value)
		}
	}
}
