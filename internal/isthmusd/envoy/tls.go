// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

const (
	tlsSocket = "envoy.transport_sockets.tls"
	rawSocket = "envoy.transport_sockets.raw_buffer"

	// agentCluster is the bootstrap's cluster of the agent's SDS socket.
	agentCluster = "sds-grpc"
	// secretTimeout lets a listener or cluster warm without a gateway secret
	// that never comes, instead of holding up all others.
	secretTimeout = 5 * time.Second
)

// Secret turns TLS material into a Secret message.
func Secret(s ir.Secret) (*tlsv3.Secret, error) {
	m := &tlsv3.Secret{Name: s.Name}
	if len(s.Certificate) > 0 {
		m.Type = &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(s.Certificate),
			PrivateKey:       inline(s.Key),
		}}
	} else {
		m.Type = &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(s.CA),
		}}
	}
	return m, (&packer{}).done("secret", s.Name)
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func (p *packer) serverTLS(t *ir.ServerTLS) *corev3.TransportSocket {
	m := &tlsv3.DownstreamTlsContext{CommonTlsContext: commonTLS(t.Certificates, t.Client, t.ALPN, t.Params)}
	m.RequireClientCertificate = no()
	if t.RequireClient {
		m.RequireClientCertificate = yes()
	}
	return &corev3.TransportSocket{
		Name:       tlsSocket,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: p.any(m)},
	}
}

func (p *packer) clientTLS(t *ir.ClientTLS) *corev3.TransportSocket {
	var certs []ir.SecretRef
	if t.Certificate != nil {
		certs = []ir.SecretRef{*t.Certificate}
	}
	m := &tlsv3.UpstreamTlsContext{
		CommonTlsContext: commonTLS(certs, t.Server, t.ALPN, t.Params),
		Sni:              t.SNI,
	}
	return &corev3.TransportSocket{
		Name:       tlsSocket,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: p.any(m)},
	}
}

func (p *packer) plaintext() *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name:       rawSocket,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: p.any(&rawbufferv3.RawBuffer{})},
	}
}

func commonTLS(certs []ir.SecretRef, peer *ir.Validation, alpn []string, params ir.TLSParams) *tlsv3.CommonTlsContext {
	c := &tlsv3.CommonTlsContext{AlpnProtocols: alpn, TlsParams: tlsParams(params)}
	for _, s := range certs {
		c.TlsCertificateSdsSecretConfigs = append(c.TlsCertificateSdsSecretConfigs, secretConfig(s))
	}
	setValidation(c, peer)
	return c
}

func setValidation(c *tlsv3.CommonTlsContext, v *ir.Validation) {
	if v == nil {
		return
	}
	ctx := &tlsv3.CertificateValidationContext{
		VerifyCertificateSpki:     v.SPKIPins,
		VerifyCertificateHash:     v.CertificateHashes,
		MatchTypedSubjectAltNames: sanMatchers(v.SANs),
	}
	if v.SkipVerify {
		ctx.TrustChainVerification = tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
	}
	if v.CA == nil {
		c.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: ctx}
		return
	}
	c.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         ctx,
			ValidationContextSdsSecretConfig: secretConfig(*v.CA),
		},
	}
}

func sanMatchers(sans []ir.SAN) []*tlsv3.SubjectAltNameMatcher {
	var out []*tlsv3.SubjectAltNameMatcher
	add := func(t tlsv3.SubjectAltNameMatcher_SanType, m *matcherv3.StringMatcher) {
		out = append(out, &tlsv3.SubjectAltNameMatcher{SanType: t, Matcher: m})
	}
	for _, s := range sans {
		m := stringMatcher(s.Match)
		if s.Kind != ir.DNSSAN {
			add(tlsv3.SubjectAltNameMatcher_URI, m)
		}
		if s.Kind != ir.URISAN {
			add(tlsv3.SubjectAltNameMatcher_DNS, m)
		}
	}
	return out
}

func secretConfig(s ir.SecretRef) *tlsv3.SdsSecretConfig {
	if s.Source == ir.FromControlPlane {
		return &tlsv3.SdsSecretConfig{Name: s.Name, SdsConfig: ads(secretTimeout)}
	}
	timeout := secretTimeout
	if s.Name == ir.WorkloadCertificate || s.Name == ir.WorkloadRoot {
		// Zero waits for ever: a mesh connection without identity is worth nothing.
		timeout = 0
	}
	return &tlsv3.SdsSecretConfig{Name: s.Name, SdsConfig: &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: agentCluster},
			}}},
		}},
		ResourceApiVersion:  corev3.ApiVersion_V3,
		InitialFetchTimeout: durationpb.New(timeout),
	}}
}

func tlsVersion(s string) tlsv3.TlsParameters_TlsProtocol {
	switch s {
	case "1.0":
		return tlsv3.TlsParameters_TLSv1_0
	case "1.1":
		return tlsv3.TlsParameters_TLSv1_1
	case "1.2":
		return tlsv3.TlsParameters_TLSv1_2
	case "1.3":
		return tlsv3.TlsParameters_TLSv1_3
	}
	return tlsv3.TlsParameters_TLS_AUTO
}

func tlsParams(t ir.TLSParams) *tlsv3.TlsParameters {
	if t.Min == "" && t.Max == "" && len(t.Ciphers) == 0 {
		return nil
	}
	return &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsVersion(t.Min),
		TlsMaximumProtocolVersion: tlsVersion(t.Max),
		CipherSuites:              t.Ciphers,
	}
}
