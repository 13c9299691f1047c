// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"strings"

	security "istio.io/api/security/v1beta1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

type mtlsMode = security.PeerAuthentication_MutualTLS_Mode

// Modes, as in PeerAuthentication.
const (
	modeUnset      = security.PeerAuthentication_MutualTLS_UNSET
	modeDisable    = security.PeerAuthentication_MutualTLS_DISABLE
	modePermissive = security.PeerAuthentication_MutualTLS_PERMISSIVE
	modeStrict     = security.PeerAuthentication_MutualTLS_STRICT
)

// mtls is what a workload's PeerAuthentications come to.
type mtls struct {
	mode  mtlsMode
	ports map[uint32]mtlsMode
}

func (m mtls) on(port uint32) mtlsMode {
	if mode, ok := m.ports[port]; ok {
		return mode
	}
	return m.mode
}

// serverMTLS resolves mesh, namespace, workload and port, each refining the one
// before; of several with one reach the oldest counts, as in Istio. selects
// tells whether a selector means the workload.
func serverMTLS(v *snapshot.View, ns string, selects func(map[string]string) bool) mtls {
	out := mtls{mode: modePermissive}
	if v.Config().MTLS == topology.Strict {
		out.mode = modeStrict
	}
	root := v.Config().Namespace
	out.refine(general(v, root))
	if ns != root {
		out.refine(general(v, ns))
	}
	for _, pa := range v.PeerAuthentications(ns) {
		labels := pa.Spec.GetSelector().GetMatchLabels()
		if len(labels) == 0 || !selects(labels) {
			continue
		}
		out.refine(pa)
		out.ports = map[uint32]mtlsMode{}
		for port, p := range pa.Spec.GetPortLevelMtls() {
			if p.GetMode() != modeUnset {
				out.ports[port] = p.GetMode()
			}
		}
		break
	}
	return out
}

func (m *mtls) refine(pa *model.PeerAuthentication) {
	if pa == nil {
		return
	}
	if mode := pa.Spec.GetMtls().GetMode(); mode != modeUnset {
		m.mode = mode
	}
}

// general is a namespace's oldest PeerAuthentication without a selector, or nil.
func general(v *snapshot.View, ns string) *model.PeerAuthentication {
	for _, pa := range v.PeerAuthentications(ns) {
		if len(pa.Spec.GetSelector().GetMatchLabels()) == 0 {
			return pa
		}
	}
	return nil
}

// alpnHTTP is what clients offer when they speak HTTP inside mesh TLS.
func alpnHTTP() []string { return []string{"istio-http/1.0", "istio-http/1.1", "istio-h2"} }

// alpnMesh is every sign of mesh TLS. Our clients never offer
// istio-peer-exchange, for it announces a header that Envoy does not know.
func alpnMesh() []string { return append(alpnHTTP(), "istio", "istio-peer-exchange") }

// alpnServer is what a HTTP server picks from.
func alpnServer() []string { return []string{"h2", "http/1.1"} }

// alpnPlain is what inspection finds in plaintext HTTP.
func alpnPlain() []string { return []string{"http/1.0", "http/1.1", "h2c"} }

func clientALPN(p ir.UpstreamProtocol) []string {
	switch p {
	case ir.HTTP1:
		return []string{"istio-http/1.1", "istio", "http/1.1"}
	case ir.HTTP2:
		return []string{"istio-h2", "istio", "h2"}
	}
	return []string{"istio"}
}

// plainALPN is for servers that are not of the mesh, who need not know of it.
func plainALPN(p ir.UpstreamProtocol) []string {
	if p == ir.HTTP2 {
		return []string{"h2"}
	}
	return []string{"http/1.1"}
}

func workloadCertificate() ir.SecretRef { return ir.SecretRef{Name: ir.WorkloadCertificate} }

func meshRoot() *ir.SecretRef { return &ir.SecretRef{Name: ir.WorkloadRoot} }

// identity is an account's SPIFFE URI.
func identity(c topology.Config, namespace, account string) string {
	return "spiffe://" + c.TrustDomain + "/ns/" + namespace + "/sa/" + account
}

func uriSAN(kind ir.StringMatchKind, value string) ir.SAN {
	return ir.SAN{Kind: ir.URISAN, Match: ir.StringMatch{Kind: kind, Value: value}}
}

// meshServerTLS ends mesh TLS: the client must have an identity of the mesh.
func meshServerTLS(c topology.Config, alpn []string) *ir.ServerTLS {
	return &ir.ServerTLS{
		Certificates: []ir.SecretRef{workloadCertificate()},
		Client: &ir.Validation{
			CA:   meshRoot(),
			SANs: []ir.SAN{uriSAN(ir.MatchPrefix, "spiffe://"+c.TrustDomain+"/")},
		},
		RequireClient: true,
		ALPN:          alpn,
		Params:        ir.TLSParams{Min: "1.2", Max: "1.3"},
	}
}

// meshClientTLS begins mesh TLS towards one of the accounts ("namespace/name").
func meshClientTLS(c topology.Config, sni string, accounts []string, p ir.UpstreamProtocol) *ir.ClientTLS {
	own := workloadCertificate()
	t := &ir.ClientTLS{
		Certificate: &own,
		Server:      &ir.Validation{CA: meshRoot()},
		SNI:         sni,
		ALPN:        clientALPN(p),
		Params:      ir.TLSParams{Min: "1.2", Max: "1.3"},
	}
	if len(accounts) == 0 {
		t.Server.SANs = []ir.SAN{uriSAN(ir.MatchPrefix, "spiffe://"+c.TrustDomain+"/")}
	}
	for _, a := range accounts {
		ns, name, _ := strings.Cut(a, "/")
		t.Server.SANs = append(t.Server.SANs, uriSAN(ir.MatchExact, identity(c, ns, name)))
	}
	return t
}
