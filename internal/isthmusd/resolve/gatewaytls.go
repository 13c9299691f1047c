// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// serverTLS ends TLS as a server asks; nil if its credentials are not there:
// Envoy would wait for them, and hold up everything else.
func serverTLS(s *scope, srv server, http bool) *ir.ServerTLS {
	t := srv.spec.GetTls()
	out := &ir.ServerTLS{Params: ir.TLSParams{
		Min: tlsVersion(t.GetMinProtocolVersion(), "1.2"), Max: tlsVersion(t.GetMaxProtocolVersion(), ""),
		Ciphers: t.GetCipherSuites(),
	}}
	if http {
		out.ALPN = alpnServer()
	}
	switch t.GetMode() {
	case networking.ServerTLSSettings_ISTIO_MUTUAL:
		mesh := meshServerTLS(s.v.Config(), out.ALPN)
		mesh.Params = out.Params
		return mesh
	case networking.ServerTLSSettings_MUTUAL, networking.ServerTLSSettings_OPTIONAL_MUTUAL:
		out.Client = &ir.Validation{
			SANs: sans(t.GetSubjectAltNames()), SPKIPins: t.GetVerifyCertificateSpki(),
			CertificateHashes: t.GetVerifyCertificateHash(),
		}
		out.RequireClient = t.GetMode() == networking.ServerTLSSettings_MUTUAL
		if !authorities(s, t, out.Client) {
			return nil
		}
	}
	if !serverCertificates(s, t, out) {
		return nil
	}
	return out
}

func serverCertificates(s *scope, t *networking.ServerTLSSettings, out *ir.ServerTLS) bool {
	names := t.GetCredentialNames()
	if t.GetCredentialName() != "" {
		names = []string{t.GetCredentialName()}
	}
	for _, n := range names {
		ref := credentialRef(n)
		if s.secret(ref) == nil {
			continue
		}
		out.Certificates = append(out.Certificates, ir.SecretRef{Name: ref, Source: ir.FromControlPlane})
	}
	if len(names) > 0 {
		return len(out.Certificates) > 0
	}
	if t.GetServerCertificate() == "" || t.GetPrivateKey() == "" {
		return false
	}
	out.Certificates = []ir.SecretRef{ir.FileCertificate(t.GetServerCertificate(), t.GetPrivateKey())}
	return true
}

func authorities(s *scope, t *networking.ServerTLSSettings, out *ir.Validation) bool {
	name := t.GetCaCertCredentialName()
	if name == "" {
		name = t.GetCredentialName()
		if names := t.GetCredentialNames(); name == "" && len(names) > 0 {
			name = names[0]
		}
	}
	if name == "" {
		file := ir.FileRoot(t.GetCaCertificates())
		out.CA = &file
		return t.GetCaCertificates() != ""
	}
	ref := credentialRef(name) + caSuffix
	if s.secret(ref) == nil {
		return false
	}
	out.CA = &ir.SecretRef{Name: ref, Source: ir.FromControlPlane}
	return true
}

func tlsVersion(v networking.ServerTLSSettings_TLSProtocol, otherwise string) string {
	switch v {
	case networking.ServerTLSSettings_TLSV1_0:
		return "1.0"
	case networking.ServerTLSSettings_TLSV1_1:
		return "1.1"
	case networking.ServerTLSSettings_TLSV1_2:
		return "1.2"
	case networking.ServerTLSSettings_TLSV1_3:
		return "1.3"
	}
	return otherwise
}

// GatewaySecrets lists the credentials that a gateway's servers use.
func GatewaySecrets(v *snapshot.View) []string {
	refs := map[string]bool{}
	sc := newScope(v)
	for _, s := range servers(v) {
		if !s.terminates() {
			continue
		}
		for _, ref := range serverSecrets(s.spec.GetTls()) {
			if sc.secret(ref) != nil {
				refs[ref] = true
			}
		}
	}
	for _, ref := range clientSecrets(sc, gatewayDestinations(sc)) {
		refs[ref] = true
	}
	return slices.Sorted(maps.Keys(refs))
}

func serverSecrets(t *networking.ServerTLSSettings) []string {
	var out []string
	for _, n := range append([]string{t.GetCredentialName()}, t.GetCredentialNames()...) {
		if n != "" {
			out = append(out, credentialRef(n), credentialRef(n)+caSuffix)
		}
	}
	if n := t.GetCaCertCredentialName(); n != "" {
		out = append(out, credentialRef(n)+caSuffix)
	}
	return out
}

// GatewaySecret resolves a credential, or nil if the gateway may not have it.
func GatewaySecret(v *snapshot.View, name string) *ir.Secret {
	if !slices.Contains(GatewaySecrets(v), name) {
		return nil
	}
	return newScope(v).secret(name)
}

// secret finds a credential that a gateway may use: in the proxy's own
// namespace, or in the one that the egress gateway stands in for. Material that
// does not parse is as good as none, since Envoy would refuse it.
func (s *scope) secret(ref string) *ir.Secret {
	ns, name, ok := s.locate(ref)
	if !ok {
		return nil
	}
	if base, isCA := strings.CutSuffix(name, caSuffix); isCA {
		return caSecret(s.v, ref, ns, base)
	}
	found := s.v.Secret(model.Key{Namespace: ns, Name: name})
	if found == nil || !validPair(found) {
		return nil
	}
	return &ir.Secret{Name: ref, Certificate: found.Cert, Key: found.PrivateKey}
}

// locate says which Secret a name on the wire means, if the proxy may have it.
func (s *scope) locate(ref string) (namespace, name string, ok bool) {
	own := s.v.ProxyNamespace()
	if rest, found := strings.CutPrefix(ref, egressScheme); found {
		namespace, name, ok = strings.Cut(rest, "/")
		return namespace, name, ok && s.behalf != "" && (namespace == s.behalf || namespace == s.root)
	}
	rest, found := strings.CutPrefix(ref, credentialScheme)
	namespace, name, ok = strings.Cut(rest, "/")
	if !ok {
		return own, rest, found
	}
	return namespace, name, found && namespace == own
}

// caSecret takes the authorities of the credential itself, or of a Secret with
// the suffix in its name, as Istio does.
func caSecret(v *snapshot.View, ref, ns, base string) *ir.Secret {
	for _, name := range []string{base, base + caSuffix} {
		s := v.Secret(model.Key{Namespace: ns, Name: name})
		if s == nil {
			continue
		}
		ca := s.CA
		if len(ca) == 0 && name != base {
			ca = s.Cert
		}
		if x509.NewCertPool().AppendCertsFromPEM(ca) {
			return &ir.Secret{Name: ref, CA: ca}
		}
	}
	return nil
}

func validPair(s *model.Secret) bool {
	_, err := tls.X509KeyPair(s.Cert, s.PrivateKey)
	return err == nil
}

// clientSecrets are the credentials of TLS origination towards destinations.
func clientSecrets(s *scope, keys []subsetKey) []string {
	var out []string
	for _, k := range keys {
		t := s.policy(k).tls
		if t.GetCredentialName() == "" {
			continue
		}
		for _, ref := range []string{credentialRef(t.GetCredentialName()), credentialRef(t.GetCredentialName()) + caSuffix} {
			if s.secret(ref) != nil {
				out = append(out, ref)
			}
		}
	}
	return out
}
