// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/agent/bootstrap"
)

func TestNodeTellsHowItIsDiscovered(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		more Environment
		want string
	}{
		"by itself":           {want: "Full"},
		"as the pod wants it": {more: Environment{"ISTIO_META_ISTHMUS_DISCOVERY": "Tables"}, want: "Tables"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := Environment{"POD_NAME": "cart-1", "POD_NAMESPACE": "shop", "INSTANCE_IP": "10.0.0.1"}
			for k, v := range tt.more {
				e[k] = v
			}
			n, err := e.node(Settings{Root: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			if got := n.Metadata["ISTHMUS_DISCOVERY"]; got != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func TestProtocolOfDiscovery(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]bootstrap.Protocol{
		"": bootstrap.Delta, "true": bootstrap.Delta, "false": bootstrap.StateOfTheWorld, "0": bootstrap.StateOfTheWorld, "perhaps": "",
	} {
		got, err := Environment{"ISTIO_DELTA_XDS": v}.protocol()
		if got != want || (err != nil) != (want == "") {
			t.Errorf("ISTIO_DELTA_XDS=%q: %q, %v, want %q", v, got, err, want)
		}
	}
}
