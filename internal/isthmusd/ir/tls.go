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

// KeyFiles are certificate and key on the proxy's disk.
type KeyFiles struct{ Certificate, Key string }

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

// Validation of a peer's certificate. One of CA and CAFile is set, or neither:
// then the certificate is not verified.
type Validation struct {
	CA     *SecretRef
	CAFile string
	SANs   []SAN
	// SkipVerify accepts certificates of unknown issuers.
	SkipVerify bool
	// CertificateHashes and SPKI pins, as in Istio's ServerTLSSettings.
	SPKIPins, CertificateHashes []string
}

// ServerTLS ends TLS on a listener.
type ServerTLS struct {
	Certificates []SecretRef
	Files        *KeyFiles
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
	Files       *KeyFiles
	Server      *Validation
	SNI         string
	// SNIFromHost sends the request's host as SNI and expects it in the certificate.
	SNIFromHost bool
	ALPN        []string
	Params      TLSParams
}
