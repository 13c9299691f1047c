// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resolve"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// Problems tells what in users' objects has no effect, by object, until their
// status says so.
func Problems(s *snapshot.Snapshot) map[string]string {
	p := model.Proxy{Type: "router", Namespace: s.Config().Namespace}
	if g := s.Config().EgressGateway; g != nil {
		p.Namespace, p.Labels = g.Namespace, g.Labels
	}
	return resolve.Problems(s.View(&p, nil))
}
