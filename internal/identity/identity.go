// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package identity holds the name that a workload proves: a SPIFFE ID in Istio's
// form spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>. It is a pure
// value: whoever holds one decides for itself how far it was verified.
package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ErrNoIdentity is wrapped by errors of FromCertificate when a certificate
// carries no URI name at all, as an ordinary serving certificate does.
var ErrNoIdentity = errors.New("certificate has no SPIFFE identity")

// SPIFFE is the identity of a workload. The zero value is nobody.
type SPIFFE struct {
	TrustDomain    string
	Namespace      string
	ServiceAccount string
}

// New checks the three parts and returns the identity that they make.
func New(trustDomain, namespace, serviceAccount string) (SPIFFE, error) {
	id := SPIFFE{TrustDomain: trustDomain, Namespace: namespace, ServiceAccount: serviceAccount}
	parsed, err := Parse(id.String())
	if err != nil {
		return SPIFFE{}, err
	}
	if parsed != id {
		return SPIFFE{}, fmt.Errorf("identity %q is not canonical", id.String())
	}
	return id, nil
}

// Parse reads an identity in Istio's form; any other SPIFFE ID is an error.
func Parse(s string) (SPIFFE, error) {
	id, err := spiffeid.FromString(s)
	if err != nil {
		return SPIFFE{}, fmt.Errorf("parse SPIFFE ID %q: %w", s, err)
	}
	return fromID(id)
}

// FromCertificate reads the identity from the certificate's only URI name. It
// does not verify the certificate.
func FromCertificate(cert *x509.Certificate) (SPIFFE, error) {
	switch len(cert.URIs) {
	case 0:
		return SPIFFE{}, ErrNoIdentity
	case 1:
		id, err := spiffeid.FromURI(cert.URIs[0])
		if err != nil {
			return SPIFFE{}, fmt.Errorf("read SPIFFE ID of certificate: %w", err)
		}
		return fromID(id)
	default:
		// The X.509-SVID standard allows exactly one; several would let the reader choose.
		return SPIFFE{}, fmt.Errorf("certificate has %d URI names, want 1", len(cert.URIs))
	}
}

// FromSubject reads the account from a Kubernetes token subject,
// system:serviceaccount:<namespace>:<name>.
func FromSubject(trustDomain, subject string) (SPIFFE, error) {
	parts := strings.Split(subject, ":")
	if len(parts) != 4 || parts[0] != "system" || parts[1] != "serviceaccount" {
		return SPIFFE{}, fmt.Errorf("subject %q is not a service account", subject)
	}
	return New(trustDomain, parts[2], parts[3])
}

// String is the SPIFFE ID; "" for nobody.
func (s SPIFFE) String() string {
	if s == (SPIFFE{}) {
		return ""
	}
	return "spiffe://" + s.TrustDomain + "/ns/" + s.Namespace + "/sa/" + s.ServiceAccount
}

// URL is the identity as a certificate's URI name.
func (s SPIFFE) URL() *url.URL {
	return &url.URL{
		Scheme: "spiffe",
		Host:   s.TrustDomain,
		Path:   "/ns/" + s.Namespace + "/sa/" + s.ServiceAccount,
	}
}

func fromID(id spiffeid.ID) (SPIFFE, error) {
	parts := strings.Split(id.Path(), "/")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "ns" || parts[3] != "sa" {
		return SPIFFE{}, fmt.Errorf("SPIFFE ID %q has no path /ns/<namespace>/sa/<account>", id)
	}
	return SPIFFE{TrustDomain: id.TrustDomain().Name(), Namespace: parts[2], ServiceAccount: parts[4]}, nil
}
