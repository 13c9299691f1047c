// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
)

// Published is the record of what a mesh's proxies trust.
type Published struct {
	// Roots that are trusted; none if their text cannot be read.
	Roots []*x509.Certificate
	// Fingerprint of the first root when the record was made.
	Fingerprint string
}

// ReadPublished reads a record: the roots' PEM, and the Fingerprint noted beside it.
// A text that cannot be read is no root; then only the fingerprint tells.
func ReadPublished(text []byte, fingerprint string) *Published {
	roots, err := ParseCertificates(text)
	if err != nil {
		roots = nil
	}
	return &Published{Roots: roots, Fingerprint: fingerprint}
}

// Knows tells whether one of these roots is published: then who trusts what is
// published goes on to be understood. The fingerprint counts as well, so that
// whoever edits the text of the root does not take the CA away.
func (p *Published) Knows(roots []*x509.Certificate) bool {
	return slices.ContainsFunc(roots, func(r *x509.Certificate) bool {
		return slices.ContainsFunc(p.Roots, r.Equal) || Fingerprint(r) == p.Fingerprint
	})
}

// Fingerprint is the SHA-256 of a certificate, in hexadecimal.
func Fingerprint(c *x509.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(c.Raw)) }
