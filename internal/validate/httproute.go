// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// checkHTTPRoutes also finds routes that can never be reached.
func checkHTTPRoutes(c checker, routes []*networking.HTTPRoute) {
	all := -1
	for i, r := range routes {
		at := c.index(i)
		if r == nil {
			at.refuse("it is empty", "add route, redirect, directResponse or delegate")
			continue
		}
		if all >= 0 {
			at.warn(fmt.Sprintf("it is never reached: route %d before it matches every request", all), "put it before that one")
		}
		checkHTTPRoute(at, r)
		if all < 0 && matchesAll(r) {
			all = i
		}
	}
}

func matchesAll(r *networking.HTTPRoute) bool {
	if len(r.Match) == 0 {
		return true
	}
	return slices.ContainsFunc(r.Match, func(m *networking.HTTPMatchRequest) bool {
		uri := m.GetUri().GetPrefix()
		return uri == "/" && m.Scheme == nil && m.Method == nil && m.Authority == nil && m.Port == 0 &&
			len(m.Headers)+len(m.WithoutHeaders)+len(m.QueryParams)+len(m.SourceLabels)+len(m.Gateways) == 0 && m.SourceNamespace == ""
	})
}

func checkHTTPRoute(c checker, r *networking.HTTPRoute) {
	checkAction(c, r)
	for i, m := range r.Match {
		checkHTTPMatch(c.at("match").index(i), m)
	}
	checkHTTPDestinations(c.at("route"), r.Route)
	checkRedirect(c.at("redirect"), r.Redirect)
	checkDirectResponse(c.at("directResponse"), r.DirectResponse)
	checkDelegate(c.at("delegate"), r.Delegate)
	checkRewrite(c.at("rewrite"), r.Rewrite)
	checkTimeout(c.at("timeout"), r.Timeout)
	checkRetries(c.at("retries"), r.Retries)
	checkFault(c.at("fault"), r.Fault)
	checkMirrors(c, r)
	checkCORS(c.at("corsPolicy"), r.CorsPolicy)
	checkHeaders(c.at("headers"), r.Headers)
}

// checkAction wants exactly one thing to be done with a request, and nothing beside
// it that would have no effect.
func checkAction(c checker, r *networking.HTTPRoute) {
	actions := map[string]bool{
		"route": len(r.Route) > 0, "redirect": r.Redirect != nil,
		"directResponse": r.DirectResponse != nil, "delegate": r.Delegate != nil,
	}
	var set []string
	for _, a := range sortedKeys(actions) {
		if actions[a] {
			set = append(set, a)
		}
	}
	if len(set) == 0 {
		c.refuse("it says nothing to do with a request", "add route, redirect, directResponse or delegate")
		return
	}
	if len(set) > 1 {
		c.refuse(strings.Join(set, " and ")+" exclude each other", "keep one of them")
		return
	}
	if set[0] == "route" {
		return
	}
	if r.Rewrite != nil && set[0] != "delegate" {
		c.at("rewrite").refuse("it has no effect beside "+set[0], "remove it")
	}
	if r.Fault != nil && set[0] == "redirect" {
		c.at("fault").refuse("it has no effect beside redirect", "remove it")
	}
}

func checkHTTPDestinations(c checker, routes []*networking.HTTPRouteDestination) {
	weights := make([]int32, 0, len(routes))
	for i, r := range routes {
		checkDestination(c.index(i).at("destination"), r.GetDestination())
		checkHeaders(c.index(i).at("headers"), r.GetHeaders())
		weights = append(weights, r.GetWeight())
	}
	checkWeights(c, weights)
}

func checkRedirect(c checker, r *networking.HTTPRedirect) {
	if r == nil {
		return
	}
	if r.Uri == "" && r.Authority == "" && r.Scheme == "" && r.RedirectPort == nil && r.PrefixRewrite == "" && r.RedirectCode == 0 {
		c.refuse("it changes nothing", "set uri, authority, port or scheme")
	}
	if r.Uri != "" && r.PrefixRewrite != "" {
		c.at("prefixRewrite").refuse("uri is set too", "use one of the two")
	}
	if r.Scheme != "" && r.Scheme != "http" && r.Scheme != "https" {
		c.at("scheme").refuse(quote(r.Scheme)+" is not a scheme", "use http or https")
	}
	if p, ok := r.RedirectPort.(*networking.HTTPRedirect_Port); ok {
		checkPort(c.at("port"), p.Port)
	}
	if !slices.Contains([]uint32{0, 301, 302, 303, 307, 308}, r.RedirectCode) {
		c.at("redirectCode").refuse(fmt.Sprintf("%d is not a redirect", r.RedirectCode), "use 301, 302, 303, 307 or 308")
	}
}

func checkDirectResponse(c checker, d *networking.HTTPDirectResponse) {
	if d == nil {
		return
	}
	checkStatus(c.at("status"), int64(d.Status))
	const limit = 1 << 20 // max_direct_response_body_size_bytes of the routes
	if size := len(d.GetBody().GetString_()) + len(d.GetBody().GetBytes()); size > limit {
		c.at("body").refuse(fmt.Sprintf("it has %d bytes", size), "keep it within 1 MiB")
	}
}

func checkStatus(c checker, status int64) {
	if status < 200 || status > 599 {
		c.refuse(fmt.Sprintf("%d is not a status of a response", status), "use a number from 200 to 599")
	}
}

func checkDelegate(c checker, d *networking.Delegate) {
	if d == nil {
		return
	}
	if !objectName.MatchString(d.Name) {
		c.at("name").refuse(quote(d.Name)+" does not name a VirtualService", "use the name of one without hosts")
	}
	checkNamespace(c.at("namespace"), d.Namespace)
}

func checkRewrite(c checker, r *networking.HTTPRewrite) {
	if r == nil {
		return
	}
	if r.Uri == "" && r.Authority == "" && r.UriRegexRewrite == nil {
		c.refuse("it changes nothing", "set uri, authority or uriRegexRewrite")
	}
	if r.UriRegexRewrite != nil {
		if r.Uri != "" {
			c.at("uri").refuse("uriRegexRewrite is set too", "use one of the two")
		}
		checkRegex(c.at("uriRegexRewrite").at("match"), r.UriRegexRewrite.Match)
	}
}

func checkRetries(c checker, r *networking.HTTPRetry) {
	if r == nil {
		return
	}
	if r.Attempts < 0 {
		c.at("attempts").refuse(fmt.Sprintf("%d is below 0", r.Attempts), "use 0 to switch retries off")
	}
	if r.Attempts == 0 && (r.PerTryTimeout != nil || r.RetryOn != "" || r.Backoff != nil) {
		c.at("attempts").refuse("0 attempts switch retries off, but there is more", "set attempts, or remove the rest")
	}
	checkTimeout(c.at("perTryTimeout"), r.PerTryTimeout)
	checkDuration(c.at("backoff"), r.Backoff)
	for _, on := range strings.Split(r.RetryOn, ",") {
		on = strings.TrimSpace(on)
		if _, err := strconv.ParseUint(on, 10, 16); r.RetryOn == "" || err == nil {
			continue
		}
		if !slices.Contains(retryReasons(), on) {
			c.at("retryOn").refuse(quote(on)+" is not a reason to retry", "use statuses, or "+strings.Join(retryReasons(), ", "))
		}
	}
}

// retryReasons are Envoy's.
func retryReasons() []string {
	return []string{
		"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited", "retriable-4xx",
		"refused-stream", "retriable-status-codes", "retriable-headers", "http3-post-connect-failure",
		"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
	}
}
