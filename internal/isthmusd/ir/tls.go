// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ir

// SecretSource is where Envoy gets a secret from.
type SecretSource uint8

// Secret sources.
const (
	// FromAgent is the agent's socket: workload certificate and root.
	FromAgent SecretSource = iota
	// FromControlPlane is the ADS stream: gateways' credentials.
	FromControlPlane
)

// Names of the agent's secrets.
const (
	WorkloadCertificate = "default"
	WorkloadRoot        = "ROOTCA"
)

// SecretRef names a secret.
type SecretRef struct {
	Name   string
	Source SecretSource
}

// SAN is an expected subject alternative name.
type SAN struct {
	Kind  SANKind
	Match StringMatch
}

// SANKind is the type of a subject alternative name.
type SANKind uint8

// Kinds of names. AnySAN stands for DNS and URI both.
const (
	AnySAN SANKind = iota
	URISAN
	DNSSAN
)

// SystemRoots names the public authorities, as the agent finds them.
const SystemRoots = "file-root:system"

// FileCertificate is a key pair on the proxy's disk, followed by the agent.
func FileCertificate(certificate, key string) SecretRef {
	return SecretRef{Name: "file-cert:" + certificate + "~" + key}
}

// FileRoot is authorities on the proxy's disk, followed by the agent.
func FileRoot(path string) SecretRef { return SecretRef{Name: "file-root:" + path} }

// Validation of a peer's certificate. Without a CA it is not verified.
type Validation struct {
	CA   *SecretRef
	SANs []SAN
	// SkipVerify accepts certificates of unknown issuers.
	SkipVerify bool
	// CertificateHashes and SPKI pins, as in Istio's ServerTLSSettings.
	SPKIPins, CertificateHashes []string
}

// ServerTLS ends TLS on a listener.
type ServerTLS struct {
	Certificates []SecretRef
	Client       *Validation
	// RequireClient refuses clients without a certificate.
	RequireClient bool
	ALPN          []string
	Params        TLSParams
}

// TLSParams are versions and ciphers; zero fields keep Envoy's defaults.
type TLSParams struct {
	// Min and Max are "1.0" to "1.3".
	Min, Max string
	Ciphers  []string
}

// ClientTLS begins TLS towards an endpoint.
type ClientTLS struct {
	Certificate *SecretRef
	Server      *Validation
	SNI         string
	// SNIFromHost sends the request's host as SNI and expects it in the certificate.
	SNIFromHost bool
	ALPN        []string
	Params      TLSParams
}
