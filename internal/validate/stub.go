// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
)

func checkGateway(checker, *networking.Gateway)                           {}
func checkVirtualService(checker, *networking.VirtualService)             {}
func checkDestinationRule(checker, *networking.DestinationRule)           {}
func checkServiceEntry(checker, *networking.ServiceEntry)                 {}
func checkTenant(checker, *networking.ServiceEntry, Rules)                {}
func checkSidecar(checker, *networking.Sidecar)                           {}
func checkPeerAuthentication(checker, *security.PeerAuthentication, bool) {}
