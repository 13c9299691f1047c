// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"maps"
	"slices"

	security "istio.io/api/security/v1beta1"
)

func checkPeerAuthentication(c checker, p *security.PeerAuthentication) {
	checkLabels(c.at("selector").at("matchLabels"), p.GetSelector().GetMatchLabels())
	if p.PortLevelMtls == nil {
		return
	}
	at := c.at("portLevelMtls")
	if len(p.PortLevelMtls) == 0 {
		at.refuse("it is empty", "name a port, or leave it out")
	}
	if len(p.GetSelector().GetMatchLabels()) == 0 {
		at.refuse("ports belong to workloads, and there is no selector", "add selector.matchLabels")
	}
	for _, n := range slices.Sorted(maps.Keys(p.PortLevelMtls)) {
		if n < 1 || n > 65535 {
			at.refuse(fmt.Sprintf("%d is not a port", n), rightPort)
		}
	}
}
