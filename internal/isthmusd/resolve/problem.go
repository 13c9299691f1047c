// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// Problems tells what in users' objects has no effect, by object. The view is the
// egress gateway's, or any router's of its namespace where there is none. Each is sound by itself; what is wrong is
// known only from the others.
func Problems(v *snapshot.View) map[string]string {
	out := portConflicts(v)
	if v.Config().EgressGateway == nil {
		return out
	}
	for _, t := range egressTargets(v) {
		c := wantedCluster(t)
		if c == nil || t.destination().policy.rule == nil {
			continue
		}
		for _, name := range missingCredentials(t.s, c) {
			out[objectName(t.destination().policy.rule.Meta)] = fmt.Sprintf(
				"Secret %s is missing, not usable, or in a namespace of which isthmusd reads none: requests for %s get 503", secretName(name), t.svc.Host)
		}
	}
	return out
}

// portConflicts finds entries whose bytes cannot be told from another's: without an
// address of its own one entry has a port, in each namespace that sees it.
func portConflicts(v *snapshot.View) map[string]string {
	byPort := map[uint32][]*model.Service{}
	for _, svc := range v.Services() {
		for _, p := range tcpPorts(svc) {
			byName := p.Protocol.IsHTTP() || p.Protocol.IsTLS()
			if svc.Object.Kind == model.KindServiceEntry && len(svc.Addresses) == 0 && !byName {
				byPort[p.Number] = append(byPort[p.Number], svc)
			}
		}
	}
	out := map[string]string{}
	for port, entries := range byPort {
		for i, svc := range entries {
			for _, older := range entries[:i] {
				if older.Namespace == svc.Namespace || older.Namespace == v.Config().Namespace || svc.Namespace == v.Config().Namespace {
					out[objectName(svc.Object)] = fmt.Sprintf(
						"PortConflict: %s has port %d, and without addresses nothing tells their connections apart", objectName(older.Object), port)
					break
				}
			}
		}
	}
	return out
}

func objectName(m model.Meta) string { return m.Kind + " " + m.Key.String() }

// secretName is the Secret that a name on the wire means, for people.
func secretName(ref string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(ref, egressScheme), credentialScheme)
	if base, ok := strings.CutSuffix(name, caSuffix); ok {
		return base + " (ca.crt)"
	}
	return name
}
