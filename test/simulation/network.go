// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	snidfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// serve runs the filter chain: its transport socket, then its filters.
func (x *run) serve(chain *listenerv3.FilterChain) error {
	x.sni = x.conn.serverName
	if err := x.terminate(chain.GetTransportSocket()); err != nil || x.out.Verdict != "" {
		return err
	}
	for _, f := range chain.GetFilters() {
		if err := x.networkFilter(f); err != nil || x.out.Verdict != "" {
			return err
		}
	}
	x.end(Closed, "filter chain %q has nothing that answers", chain.Name)
	return nil
}

// terminate ends a layer of TLS, where the chain does.
func (x *run) terminate(s *corev3.TransportSocket) error {
	a := s.GetTypedConfig()
	if s == nil || a.MessageIs(&rawbufferv3.RawBuffer{}) {
		return nil
	}
	ctx, ok, err := unpack(a, &tlsv3.DownstreamTlsContext{})
	if err != nil {
		return err
	}
	if !ok {
		return notModelled("transport socket %s", s.Name)
	}
	if len(x.req.TLS) == 0 {
		x.end(Closed, "the chain ends TLS and the client speaks none")
		return nil
	}
	t := x.req.TLS[0]
	x.req.TLS = x.req.TLS[1:]
	x.secure, x.sni = true, strings.ToLower(t.SNI)
	if err := x.present(ctx, t); err != nil || x.out.Verdict != "" {
		return err
	}
	if err := x.identify(ctx, t); err != nil || x.out.Verdict != "" {
		return err
	}
	x.say("TLS ends here, the client is %q", x.peer)
	return nil
}

// meshCertificate is the name of the secret with a proxy's own certificate.
const meshCertificate = "default"

// present shows the server's certificate, as far as its names are known.
func (x *run) present(ctx *tlsv3.DownstreamTlsContext, t TLS) error {
	own := slices.ContainsFunc(ctx.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs(), func(s *tlsv3.SdsSecretConfig) bool {
		return s.GetName() == meshCertificate
	})
	if !own || len(x.req.Certificate) == 0 {
		return nil
	}
	ok, err := t.Trusts(x.req.Certificate)
	if err == nil && !ok {
		x.end(Closed, "the client wants %v, the certificate is for %q", t.Wanted, x.req.Certificate)
	}
	return err
}

// validation is what a side of TLS demands of the other's certificate, nil for nothing.
func validation(common *tlsv3.CommonTlsContext) (*tlsv3.CertificateValidationContext, error) {
	v := common.GetValidationContext()
	if c := common.GetCombinedValidationContext(); c != nil {
		v = c.GetDefaultValidationContext()
	}
	if len(v.GetVerifyCertificateSpki())+len(v.GetVerifyCertificateHash()) > 0 {
		return nil, notModelled("a pinned certificate")
	}
	return v, nil
}

// identify checks the client's certificate.
func (x *run) identify(ctx *tlsv3.DownstreamTlsContext, t TLS) error {
	common := ctx.GetCommonTlsContext()
	v, err := validation(common)
	if err != nil {
		return err
	}
	asks := v != nil || common.GetValidationContextSdsSecretConfig() != nil
	required := ctx.GetRequireClientCertificate().GetValue()
	if len(t.Peer) == 0 || !asks && !required {
		if required {
			x.end(Closed, "the chain asks for a client certificate and the client has none")
		}
		return nil
	}
	x.peer, x.out.Peer = t.Peer, uris(t.Peer)
	ok, err := matchesSAN(v.GetMatchTypedSubjectAltNames(), t.Peer)
	if err == nil && !ok {
		x.end(Closed, "no name of the client's certificate (%q) is accepted", t.Peer)
	}
	return err
}

func matchesSAN(wanted []*tlsv3.SubjectAltNameMatcher, names []string) (bool, error) {
	if len(wanted) == 0 {
		return true, nil
	}
	return anyOf(wanted, func(w *tlsv3.SubjectAltNameMatcher) (bool, error) {
		return anyOf(names, func(name string) (bool, error) { return matchName(w, name) })
	})
}

// matchName holds one name of a certificate against what is wanted. The star of a
// host's name stands for its first label.
func matchName(w *tlsv3.SubjectAltNameMatcher, name string) (bool, error) {
	uri := isURI(name)
	if uri != (w.GetSanType() == tlsv3.SubjectAltNameMatcher_URI) {
		return false, nil
	}
	if parent, star := strings.CutPrefix(name, "*."); star && !uri && w.GetMatcher().GetExact() != "" {
		_, under, _ := strings.Cut(w.GetMatcher().GetExact(), ".")
		return strings.EqualFold(parent, under), nil
	}
	return matchString(w.GetMatcher(), name)
}

func isURI(name string) bool { return strings.Contains(name, "://") }

func (x *run) networkFilter(f *listenerv3.Filter) error {
	a := f.GetTypedConfig()
	if onlyWatches(a) {
		return nil
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		return notModelled("network filter %s (%s)", f.Name, a.GetTypeUrl())
	}
	switch m := m.(type) {
	case *netrbacv3.RBAC:
		return x.networkRBAC(m)
	case *netstatev3.Config:
		return x.keepState(slices.Concat(m.GetOnNewConnection(), m.GetOnDownstreamTlsHandshake()))
	case *snidfpv3.FilterConfig:
		return x.dynamicSNI(m)
	case *tcpv3.TcpProxy:
		return x.tcpProxy(m)
	case *hcmv3.HttpConnectionManager:
		return x.http(m)
	}
	return notModelled("network filter %s", f.Name)
}

// onlyWatches tells of filters that change nothing about where a request goes.
func onlyWatches(a *anypb.Any) bool {
	_, kind, _ := strings.Cut(a.GetTypeUrl(), "envoy.extensions.filters.")
	for _, prefix := range []string{
		"http.header_mutation.", "http.grpc_stats.", "http.grpc_web.", "http.compressor.", "http.decompressor.",
		"http.set_metadata.",
	} {
		if strings.HasPrefix(kind, prefix) {
			return true
		}
	}
	return false
}

func (x *run) networkRBAC(m *netrbacv3.RBAC) error {
	if m.GetMatcher() != nil {
		return notModelled("RBAC with a matcher")
	}
	if m.GetRules() == nil {
		return nil
	}
	why, err := x.permitted(m.GetRules())
	if err != nil {
		return err
	}
	if why != "" {
		x.end(Closed, "RBAC: %s", why)
		return nil
	}
	x.say("RBAC lets it pass")
	return nil
}

// keepState sets filter state.
func (x *run) keepState(values []*statev3.FilterStateValue) error {
	for _, v := range values {
		text, err := x.format(v.GetFormatString().GetTextFormatSource().GetInlineString())
		if err != nil {
			return err
		}
		if x.req.State == nil {
			x.req.State = map[string]string{}
		}
		x.req.State[v.GetObjectKey()] = text
		x.say("filter state %s is %q", v.GetObjectKey(), text)
		if v.GetObjectKey() == alpnState {
			x.alpn = strings.Split(text, ",")
		}
	}
	return nil
}

// alpnState overrides the protocols that a cluster offers.
const alpnState = "envoy.network.application_protocols"

func (x *run) dynamicSNI(m *snidfpv3.FilterConfig) error {
	if x.sni == "" {
		return nil
	}
	x.dynamic = &Endpoint{Name: x.sni, Port: uint16(m.GetPortValue())}
	x.say("the host is the server name, %s", x.dynamic)
	return nil
}

func (x *run) tcpProxy(m *tcpv3.TcpProxy) error {
	if t := m.GetTunnelingConfig(); t != nil {
		if err := x.openTunnel(t); err != nil {
			return err
		}
	}
	x.out.Logged = len(m.GetAccessLog()) > 0
	cluster := m.GetCluster()
	if w := m.GetWeightedClusters(); w != nil {
		var weights []uint64
		for _, c := range w.GetClusters() {
			weights = append(weights, uint64(c.GetWeight()))
		}
		c := w.GetClusters()[x.dice.choose(weights)]
		cluster = c.GetName()
		x.say("cluster %s by weight %d", cluster, c.GetWeight())
	}
	return x.forward(cluster, m.GetMetadataMatch())
}

// bytesOnHTTP is what a connection manager makes of a client that does not speak
// HTTP to it; true if that was the end.
func (x *run) bytesOnHTTP(m *hcmv3.HttpConnectionManager) bool {
	switch {
	case len(x.req.TLS) > 0:
		x.answer(400, "TLS where HTTP is expected")
	case !x.req.isHTTP():
		x.answer(400, "bytes that are no HTTP")
	case m.GetCodecType() == hcmv3.HttpConnectionManager_HTTP1 && x.req.Protocol == HTTP2,
		m.GetCodecType() == hcmv3.HttpConnectionManager_HTTP2 && x.req.Protocol != HTTP2:
		x.end(Closed, "%s on a chain for %s only", x.req.Protocol, m.GetCodecType())
	case x.req.Protocol == HTTP10 && !m.GetHttpProtocolOptions().GetAcceptHttp_10():
		x.answer(426, "HTTP/1.0 is not accepted")
	default:
		return false
	}
	return true
}

// scheme as the client used it.
func (x *run) scheme() string {
	if x.secure {
		return "https"
	}
	return "http"
}
