// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import "strings"

const (
	credentialScheme = "kubernetes://"
	// egressScheme is for credentials of other namespaces than the gateway's own,
	// which only the egress gateway gets, and only where a rule of that namespace
	// names them.
	egressScheme = "egress://"
	// caSuffix asks for the authorities of a credential.
	caSuffix = "-cacert"
)

// clientCredential is the name of the secret that a DestinationRule names. At
// the egress gateway it is the one in the rule's own namespace.
func (s *scope) clientCredential(p trafficPolicy) string {
	name := p.tls.GetCredentialName()
	if s.behalf == "" || p.rule == nil {
		return credentialRef(name)
	}
	return egressScheme + p.rule.Namespace + "/" + strings.TrimPrefix(name, credentialScheme)
}

// credentialRef is the name of a credential's secret on the wire.
func credentialRef(name string) string {
	if strings.Contains(name, "://") {
		return name
	}
	return credentialScheme + name
}
