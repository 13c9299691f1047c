// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	codecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// httpOptions is the key of a cluster's protocol options.
const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Upstream is the request as it leaves for the endpoint, whose address is to.
// identity is what the proxy's certificate says.
func (o Outcome) Upstream(e Endpoint, to netip.AddrPort, identity []string) (Request, error) {
	c := o.owner.clusters[o.Cluster]
	r := o.Forward.clone()
	r.Destination, r.Accepted, r.Internal = to, netip.AddrPort{}, e.Internal
	options, err := optionsOf(c)
	if err != nil {
		return r, err
	}
	if o.speaksHTTP() {
		if err := setProtocol(&r, options); err != nil {
			return r, err
		}
	}
	if e.Internal == "" {
		r.State = nil
	}
	t, err := o.transport(c, e, options, r)
	if err != nil {
		return r, err
	}
	if t != nil {
		if !t.anonymous {
			t.Peer = identity
		}
		r.TLS = append([]TLS{t.TLS}, r.TLS...)
	}
	return r, nil
}

func optionsOf(c *clusterv3.Cluster) (*httpv3.HttpProtocolOptions, error) {
	out := &httpv3.HttpProtocolOptions{}
	if a := c.GetTypedExtensionProtocolOptions()[httpOptions]; a != nil {
		if _, _, err := unpack(a, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// refused runs the cluster's own filters, which know the endpoint, and says why
// they refuse the request; "" if they let it pass.
func (o Outcome) refused(to netip.AddrPort) (string, error) {
	options, err := optionsOf(o.owner.clusters[o.Cluster])
	if err != nil || !o.speaksHTTP() {
		return "", err
	}
	for _, f := range options.GetHttpFilters() {
		a := f.GetTypedConfig()
		m, ok, err := unpack(a, &httprbacv3.RBAC{})
		switch {
		case err != nil:
			return "", err
		case a.MessageIs(&codecv3.UpstreamCodec{}):
			continue
		case !ok || m.GetMatcher() != nil:
			return "", notModelled("a cluster's filter %s", f.GetName())
		}
		x := &run{config: o.owner, req: o.Forward, upstream: to}
		if why, err := x.permitted(m.GetRules()); why != "" || err != nil {
			return why, err
		}
	}
	return "", nil
}

// setProtocol is the protocol of the connection to the endpoint.
func setProtocol(r *Request, o *httpv3.HttpProtocolOptions) error {
	switch p := o.GetUpstreamProtocolOptions().(type) {
	case nil:
		r.Protocol = HTTP1
	case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_:
		switch p.ExplicitHttpConfig.GetProtocolConfig().(type) {
		case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions:
			r.Protocol = HTTP2
		case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions:
			r.Protocol = HTTP1
		default:
			return notModelled("upstream protocol %T", p.ExplicitHttpConfig.GetProtocolConfig())
		}
	case *httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
		if r.Protocol == HTTP10 {
			r.Protocol = HTTP1
		}
	default:
		return notModelled("upstream protocol %T", p)
	}
	return nil
}

// offer is a layer of TLS towards an endpoint; anonymous if it shows no certificate.
type offer struct {
	TLS
	anonymous bool
}

// transport is what the cluster's socket adds, nil for nothing.
func (o Outcome) transport(c *clusterv3.Cluster, e Endpoint, h *httpv3.HttpProtocolOptions, r Request) (*offer, error) {
	s := c.GetTransportSocket()
	for _, m := range c.GetTransportSocketMatches() {
		if holds(e.match, m.GetMatch()) {
			s = m.GetTransportSocket()
			break
		}
	}
	for s != nil {
		a := s.GetTypedConfig()
		inner, ok, err := unpack(a, &internalv3.InternalUpstreamTransport{})
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		s = inner.GetTransportSocket()
	}
	a := s.GetTypedConfig()
	if s == nil || a.MessageIs(&rawbufferv3.RawBuffer{}) {
		return nil, nil
	}
	ctx, ok, err := unpack(a, &tlsv3.UpstreamTlsContext{})
	if err == nil && !ok {
		err = notModelled("transport socket %s", s.GetName())
	}
	if err != nil {
		return nil, err
	}
	v, err := validation(ctx.GetCommonTlsContext())
	if err != nil {
		return nil, err
	}
	out := o.handshake(ctx, e, h, r)
	out.Wanted = v.GetMatchTypedSubjectAltNames()
	if h.GetUpstreamHttpProtocolOptions().GetAutoSanValidation() && o.speaksHTTP() {
		out.Wanted = append(slices.Clip(out.Wanted), For(out.SNI)...)
	}
	return out, nil
}

func (o Outcome) handshake(ctx *tlsv3.UpstreamTlsContext, e Endpoint, h *httpv3.HttpProtocolOptions, r Request) *offer {
	common := ctx.GetCommonTlsContext()
	out := &offer{TLS: TLS{SNI: ctx.GetSni(), ALPN: common.GetAlpnProtocols()}}
	out.anonymous = len(common.GetTlsCertificateSdsSecretConfigs())+len(common.GetTlsCertificates()) == 0
	if u := h.GetUpstreamHttpProtocolOptions(); u.GetAutoSni() && o.speaksHTTP() {
		host := r.Authority
		if name := u.GetOverrideAutoSniHeader(); name != "" {
			host = r.first(name)
		}
		if host = withoutPort(host); !isIP(host) {
			out.SNI = host
		}
	}
	if ctx.GetAutoHostSni() && e.hostname != "" {
		out.SNI = e.hostname
	}
	switch {
	case len(o.alpn) > 0 && o.speaksHTTP():
		out.ALPN = o.alpn
	case len(out.ALPN) == 0 && o.speaksHTTP():
		out.ALPN = map[Protocol][]string{HTTP2: {"h2"}, HTTP1: {"http/1.1"}}[r.Protocol]
	}
	return out
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

// holds tells whether an endpoint's metadata has all that a match asks for.
func holds(have, wanted *structpb.Struct) bool {
	for k, v := range wanted.GetFields() {
		if have.GetFields()[k].AsInterface() != v.AsInterface() {
			return false
		}
	}
	return true
}

// source is the address from which the cluster connects, unset for the machine's.
func (o Outcome) source() netip.Addr {
	ip, err := netip.ParseAddr(o.owner.clusters[o.Cluster].GetUpstreamBindConfig().GetSourceAddress().GetAddress())
	if err != nil {
		return netip.Addr{}
	}
	return ip
}
