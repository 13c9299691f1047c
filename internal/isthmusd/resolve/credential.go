// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import "strings"

const (
	credentialScheme = "kubernetes://"
	// caSuffix asks for the authorities of a credential.
	caSuffix = "-cacert"
)

// clientCredential is the name of the secret that a DestinationRule names. At
// the egress gateway it is the one in the rule's own namespace.
func (s *scope) clientCredential(p trafficPolicy) string {
	name := p.tls.GetCredentialName()
	if !s.behalf || p.rule == nil || strings.ContainsAny(name, "/:") {
		return credentialRef(name)
	}
	return credentialScheme + p.rule.Namespace + "/" + name
}

// credentialRef is the name of a credential's secret on the wire.
func credentialRef(name string) string {
	if strings.Contains(name, "://") {
		return name
	}
	return credentialScheme + name
}
