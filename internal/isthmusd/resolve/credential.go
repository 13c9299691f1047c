// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import "strings"

const (
	credentialScheme = "kubernetes://"
	// caSuffix asks for the authorities of a credential.
	caSuffix = "-cacert"
)

// credentialRef is the name of a credential's secret on the wire.
func credentialRef(name string) string {
	if strings.Contains(name, "://") {
		return name
	}
	return credentialScheme + name
}
