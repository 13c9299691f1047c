// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// exposedBuffer bounds what a client outside the mesh can make a gateway hold.
const exposedBuffer = 32 << 10

// Listener turns a listener into its message.
func Listener(l ir.Listener) (*listenerv3.Listener, error) {
	p := &packer{}
	m := &listenerv3.Listener{
		Name:             l.Name,
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		ListenerFilters:  p.listenerFilters(l),
		AccessLog:        p.accessLogs(l.AccessLog),
	}
	if l.Direction == ir.Inbound {
		m.TrafficDirection = corev3.TrafficDirection_INBOUND
	}
	p.setBinding(m, l)
	if l.Inspect.TLS || l.Inspect.HTTP {
		m.ListenerFiltersTimeout = durationpb.New(l.Inspect.Timeout)
		m.ContinueOnListenerFiltersTimeout = true
	}
	for i := range l.Chains {
		m.FilterChains = append(m.FilterChains, p.chain(&l.Chains[i], l))
	}
	m.FilterChainMatcher = p.byAddress(l.ByAddress)
	if l.Default != nil {
		m.DefaultFilterChain = p.chain(l.Default, l)
		m.DefaultFilterChain.FilterChainMatch = nil
	}
	return m, p.done("listener", l.Name)
}

func (p *packer) setBinding(m *listenerv3.Listener, l ir.Listener) {
	if l.Binding == ir.Internal {
		m.ListenerSpecifier = &listenerv3.Listener_InternalListener{InternalListener: &listenerv3.Listener_InternalListenerConfig{}}
		return
	}
	for i, a := range l.Addresses {
		if i == 0 {
			m.Address = socketAddress(a.IP, a.Port)
			continue
		}
		m.AdditionalAddresses = append(m.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: socketAddress(a.IP, a.Port)})
	}
	if l.Binding == ir.Virtual {
		m.BindToPort = no()
	}
	if l.HandOver {
		m.UseOriginalDst = yes()
	}
	if l.Exposed {
		m.PerConnectionBufferLimitBytes = u32(exposedBuffer)
	}
}

func (p *packer) listenerFilters(l ir.Listener) []*listenerv3.ListenerFilter {
	var out []*listenerv3.ListenerFilter
	if l.Restore {
		out = append(out, &listenerv3.ListenerFilter{
			Name:       "envoy.filters.listener.original_dst",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: p.any(&originaldstv3.OriginalDst{})},
		})
	}
	if l.Inspect.TLS {
		out = append(out, &listenerv3.ListenerFilter{
			Name:       "envoy.filters.listener.tls_inspector",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: p.any(&tlsinspectorv3.TlsInspector{})},
		})
	}
	if l.Inspect.HTTP {
		out = append(out, &listenerv3.ListenerFilter{
			Name:           "envoy.filters.listener.http_inspector",
			ConfigType:     &listenerv3.ListenerFilter_TypedConfig{TypedConfig: p.any(&httpinspectorv3.HttpInspector{})},
			FilterDisabled: onPorts(l.Inspect.HTTPExcept),
		})
	}
	return out
}

// onPorts is true for connections to any of the ports.
func onPorts(ports []uint32) *listenerv3.ListenerFilterChainMatchPredicate {
	var rules []*listenerv3.ListenerFilterChainMatchPredicate
	for _, n := range ports {
		rules = append(rules, &listenerv3.ListenerFilterChainMatchPredicate{
			Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
				DestinationPortRange: &typev3.Int32Range{Start: int32(n), End: int32(n) + 1},
			},
		})
	}
	switch len(rules) {
	case 0:
		return nil
	case 1:
		return rules[0]
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{
		Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
			OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules},
		},
	}
}

func (p *packer) chain(c *ir.Chain, l ir.Listener) *listenerv3.FilterChain {
	m := &listenerv3.FilterChain{Name: c.Name, FilterChainMatch: chainMatch(c.Match)}
	if c.TLS != nil {
		m.TransportSocket = p.serverTLS(c.TLS)
	}
	if c.KeepPeer {
		m.Filters = append(m.Filters, p.keepPeer())
	}
	if c.KeepDialled {
		m.Filters = append(m.Filters, p.keepDialled())
	}
	if c.Callers != nil {
		m.Filters = append(m.Filters, p.callers(c.Callers))
	}
	if c.DynamicHost != nil {
		m.Filters = append(m.Filters, p.dynamicHost(c.DynamicHost))
	}
	switch {
	case c.HTTP != nil:
		m.Filters = append(m.Filters, p.http(c.HTTP, l.Direction))
	case c.TCP != nil:
		m.Filters = append(m.Filters, p.tcp(c.TCP))
	default:
		p.fail("filter chain %q does nothing", c.Name)
	}
	return m
}

func chainMatch(m ir.Match) *listenerv3.FilterChainMatch {
	out := &listenerv3.FilterChainMatch{
		DestinationPort:      optU32(m.Port),
		PrefixRanges:         cidrs(m.Ranges),
		ServerNames:          m.ServerNames,
		ApplicationProtocols: m.ALPN,
		TransportProtocol:    m.Transport,
		SourcePrefixRanges:   cidrs(m.SourceRanges),
	}
	if m.Port == 0 && len(m.Ranges)+len(m.ServerNames)+len(m.ALPN)+len(m.SourceRanges) == 0 && m.Transport == "" {
		return nil
	}
	return out
}

func (p *packer) accessLogs(a *ir.AccessLog) []*accesslogv3.AccessLog {
	if a == nil {
		return nil
	}
	return []*accesslogv3.AccessLog{p.accessLog(a)}
}
