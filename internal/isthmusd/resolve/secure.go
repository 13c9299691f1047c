// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// secure decides on TLS towards a destination's endpoints: what the
// DestinationRule says, else mesh TLS to endpoints that can end it.
func (s *scope) secure(c *ir.Cluster, d destination) {
	t := d.policy.tls
	switch {
	case t == nil:
		s.autoTLS(c, d)
	case t.GetMode() == networking.ClientTLSSettings_DISABLE:
	case t.GetMode() == networking.ClientTLSSettings_ISTIO_MUTUAL:
		c.TLS = s.mutual(c, d)
		if t.GetSni() != "" {
			c.TLS.SNI = t.GetSni()
		}
		if len(t.GetSubjectAltNames()) > 0 {
			c.TLS.Server.SANs = sans(t.GetSubjectAltNames())
		}
	default:
		c.TLS = s.originate(c, d)
	}
}

// autoTLS is mesh TLS by what each endpoint says of itself. Where endpoints are
// not known beforehand, all must be able.
func (s *scope) autoTLS(c *ir.Cluster, d destination) {
	off := s.v.Mesh().GetEnableAutoMtls() != nil && !s.v.Mesh().GetEnableAutoMtls().GetValue()
	if off || d.svc.External {
		return
	}
	switch c.Discovery {
	case ir.EDS:
		c.TLS, c.Auto = s.mutual(c, d), true
	case ir.OriginalDst:
		if s.v.Summary(d.svc.ServiceKey).AllTLS && s.wantedMode(d) != modeDisable {
			c.TLS = s.mutual(c, d)
		}
	}
}

// wantedMode is what the PeerAuthentications say of a service's workloads, told
// by the labels that all of them have.
func (s *scope) wantedMode(d destination) mtlsMode {
	m := serverMTLS(s.v, d.svc.Namespace, func(selector map[string]string) bool {
		return snapshot.Matches(selector, d.svc.Selector)
	})
	return m.on(endpointPort(model.Endpoint{}, d.port))
}

func (s *scope) mutual(c *ir.Cluster, d destination) *ir.ClientTLS {
	accounts := s.v.Summary(d.svc.ServiceKey).ServiceAccounts
	t := meshClientTLS(s.v.Config(), meshSNI(d.key), accounts, c.Protocol)
	for _, san := range d.svc.SubjectAltNames {
		t.Server.SANs = append(t.Server.SANs, sans([]string{san})...)
	}
	return t
}

// originate is TLS of the outside world's kind. A certificate must fit the name
// that was asked for, unless verification is given up expressly.
func (s *scope) originate(c *ir.Cluster, d destination) *ir.ClientTLS {
	t := d.policy.tls
	out := &ir.ClientTLS{SNI: t.GetSni(), Server: &ir.Validation{SkipVerify: t.GetInsecureSkipVerify().GetValue()}}
	if c.Protocol == ir.HTTP2 {
		out.ALPN = []string{"h2"}
	}
	names := t.GetSubjectAltNames()
	if len(names) == 0 {
		names = d.svc.SubjectAltNames
	}
	host := d.key.host
	switch {
	case out.SNI != "":
	case c.Protocol != ir.Bytes:
		out.SNIFromHost = true
	case !isWildcard(host):
		out.SNI = host
	}
	if len(names) == 0 && out.SNI != "" {
		names = []string{out.SNI}
	}
	s.credentials(out, d)
	if out.Server.SkipVerify {
		out.Server.CA = nil
		return out
	}
	out.Server.SANs = sans(names)
	return out
}

// credentials says where certificate and authorities come from.
func (s *scope) credentials(out *ir.ClientTLS, d destination) {
	t := d.policy.tls
	mutual := t.GetMode() == networking.ClientTLSSettings_MUTUAL
	if name := t.GetCredentialName(); name != "" && s.router {
		ref := s.clientCredential(d.policy)
		out.Server.CA = &ir.SecretRef{Name: ref + caSuffix, Source: ir.FromControlPlane}
		if mutual {
			out.Certificate = &ir.SecretRef{Name: ref, Source: ir.FromControlPlane}
		}
		return
	}
	ca := ir.SecretRef{Name: ir.SystemRoots}
	if file := t.GetCaCertificates(); file != "" {
		ca = ir.FileRoot(file)
	}
	out.Server.CA = &ca
	if mutual && t.GetClientCertificate() != "" {
		own := ir.FileCertificate(t.GetClientCertificate(), t.GetPrivateKey())
		out.Certificate = &own
	}
}

// sans are expected names: URIs are told by their scheme, wildcards by their star.
func sans(names []string) []ir.SAN {
	var out []ir.SAN
	for _, n := range names {
		san := ir.SAN{Kind: ir.DNSSAN, Match: ir.StringMatch{Kind: ir.MatchExact, Value: n}}
		if strings.Contains(n, "://") {
			san.Kind = ir.URISAN
		}
		if star := strings.HasPrefix(n, "*."); star {
			san.Match = ir.StringMatch{Kind: ir.MatchSuffix, Value: n[1:]}
		}
		out = append(out, san)
	}
	return out
}
