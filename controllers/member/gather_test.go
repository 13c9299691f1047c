// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

func TestPublished(t *testing.T) {
	const walls = "{active: EgressGateway, target: EgressGateway}"
	tests := map[string]struct {
		data    map[string]string
		walls   bool
		wantErr bool
	}{
		"nothing yet":                        {},
		"policies are asked for":             {data: map[string]string{topology.ConfigKey: "epoch: e1", topology.StateKey: walls}, walls: true},
		"no policies are asked for":          {data: map[string]string{topology.ConfigKey: "epoch: e1", topology.StateKey: "{active: IngressOnly, target: IngressOnly}"}},
		"a field of another version":         {data: map[string]string{topology.ConfigKey: "{epoch: e1, later: true}", topology.StateKey: walls}, wantErr: true},
		"a state that cannot be read":        {data: map[string]string{topology.ConfigKey: "epoch: e1", topology.StateKey: "["}, wantErr: true},
		"a state without what was published": {data: map[string]string{topology.StateKey: walls}, wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, s, err := published(tt.data)
			if (err != nil) != tt.wantErr || err == nil && s.Walls() != tt.walls {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}
