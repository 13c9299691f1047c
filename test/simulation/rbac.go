// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rbac/matchers/upstream_ip_port/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// permitted evaluates rules and says why they refuse; "" if they let pass.
func (x *run) permitted(rules *rbacv3.RBAC) (string, error) {
	hit := ""
	for _, name := range slices.Sorted(maps.Keys(rules.GetPolicies())) {
		ok, err := x.policy(rules.GetPolicies()[name])
		if err != nil {
			return "", fmt.Errorf("policy %q: %w", name, err)
		}
		if ok {
			hit = name
			break
		}
	}
	switch {
	case rules.GetAction() == rbacv3.RBAC_LOG:
		return "", nil
	case rules.GetAction() == rbacv3.RBAC_DENY && hit != "":
		return fmt.Sprintf("policy %q denies it", hit), nil
	case rules.GetAction() == rbacv3.RBAC_ALLOW && hit == "":
		return fmt.Sprintf("no policy allows it (client %q)", x.peer), nil
	}
	return "", nil
}

func (x *run) policy(p *rbacv3.Policy) (bool, error) {
	if p.GetCondition() != nil || p.GetCheckedCondition() != nil {
		return false, notModelled("a CEL condition")
	}
	ok, err := anyOf(p.GetPermissions(), x.permission)
	if !ok || err != nil {
		return false, err
	}
	return anyOf(p.GetPrincipals(), x.principal)
}

func anyOf[T any](list []T, f func(T) (bool, error)) (bool, error) {
	for _, e := range list {
		if ok, err := f(e); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func allOf[T any](list []T, f func(T) (bool, error)) (bool, error) {
	for _, e := range list {
		if ok, err := f(e); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (x *run) permission(p *rbacv3.Permission) (bool, error) {
	switch r := p.GetRule().(type) {
	case *rbacv3.Permission_Any:
		return r.Any, nil
	case *rbacv3.Permission_AndRules:
		return allOf(r.AndRules.GetRules(), x.permission)
	case *rbacv3.Permission_OrRules:
		return anyOf(r.OrRules.GetRules(), x.permission)
	case *rbacv3.Permission_NotRule:
		ok, err := x.permission(r.NotRule)
		return !ok, err
	case *rbacv3.Permission_Header:
		return matchHeader(r.Header, x.req)
	case *rbacv3.Permission_UrlPath:
		path, _ := splitQuery(x.req.Path)
		return matchString(r.UrlPath.GetPath(), path)
	case *rbacv3.Permission_DestinationIp:
		p, ok := prefix(r.DestinationIp)
		return ok && p.Contains(x.conn.destination.Addr()), nil
	case *rbacv3.Permission_DestinationPort:
		return r.DestinationPort == uint32(x.conn.destination.Port()), nil
	case *rbacv3.Permission_DestinationPortRange:
		n := int32(x.conn.destination.Port())
		return n >= r.DestinationPortRange.GetStart() && n < r.DestinationPortRange.GetEnd(), nil
	case *rbacv3.Permission_RequestedServerName:
		return matchString(r.RequestedServerName, x.sni)
	case *rbacv3.Permission_Matcher:
		return x.upstreamAddress(r.Matcher.GetTypedConfig())
	}
	return false, notModelled("RBAC permission %T", p.GetRule())
}

func (x *run) principal(p *rbacv3.Principal) (bool, error) {
	switch r := p.GetIdentifier().(type) {
	case *rbacv3.Principal_Any:
		return r.Any, nil
	case *rbacv3.Principal_AndIds:
		return allOf(r.AndIds.GetIds(), x.principal)
	case *rbacv3.Principal_OrIds:
		return anyOf(r.OrIds.GetIds(), x.principal)
	case *rbacv3.Principal_NotId:
		ok, err := x.principal(r.NotId)
		return !ok, err
	case *rbacv3.Principal_Authenticated_:
		return x.authenticated(r.Authenticated)
	case *rbacv3.Principal_DirectRemoteIp:
		return contains(prefix(r.DirectRemoteIp))(x.req.Source.Addr()), nil
	case *rbacv3.Principal_RemoteIp:
		return contains(prefix(r.RemoteIp))(x.req.Source.Addr()), nil
	case *rbacv3.Principal_SourceIp:
		return contains(prefix(r.SourceIp))(x.req.Source.Addr()), nil //nolint:staticcheck // as above
	case *rbacv3.Principal_Header:
		return matchHeader(r.Header, x.req)
	case *rbacv3.Principal_UrlPath:
		path, _ := splitQuery(x.req.Path)
		return matchString(r.UrlPath.GetPath(), path)
	case *rbacv3.Principal_FilterState:
		v, ok := x.req.State[r.FilterState.GetKey()]
		if !ok || r.FilterState.GetStringMatch() == nil {
			return false, nil
		}
		return matchString(r.FilterState.GetStringMatch(), v)
	}
	return false, notModelled("RBAC principal %T", p.GetIdentifier())
}

func contains(p netip.Prefix, ok bool) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return ok && p.Contains(a) }
}

// authenticated looks at the URI names of the client's certificate first, then at
// the others.
func (x *run) authenticated(a *rbacv3.Principal_Authenticated) (bool, error) {
	if !x.secure {
		return false, nil
	}
	if a.GetPrincipalName() == nil {
		return true, nil
	}
	names := uris(x.peer)
	if len(names) == 0 {
		names = x.peer
	}
	return anyOf(names, func(s string) (bool, error) { return matchString(a.GetPrincipalName(), s) })
}

// upstreamAddress matches the endpoint that has been chosen.
func (x *run) upstreamAddress(a *anypb.Any) (bool, error) {
	m, ok, err := unpack(a, &upstreamv3.UpstreamIpPortMatcher{})
	if err != nil || !ok || !x.upstream.IsValid() {
		return false, errors.Join(err, notModelled("RBAC matcher %s", a.GetTypeUrl()))
	}
	if r := m.GetUpstreamPortRange(); r != nil && (int64(x.upstream.Port()) < r.GetStart() || int64(x.upstream.Port()) > r.GetEnd()) {
		return false, nil
	}
	return m.GetUpstreamIp() == nil || contains(prefix(m.GetUpstreamIp()))(x.upstream.Addr()), nil
}

func uris(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(s string) bool { return !isURI(s) })
}
