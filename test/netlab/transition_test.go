// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/test/netlab"
	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

// TestNoRequestIsLostBetweenTopologies goes through all six transitions while an
// application calls a registered host in three ways. Traffic is on the new path
// before the next transition begins.
func TestNoRequestIsLostBetweenTopologies(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway, setTopology(topology.IngressOnly))
	a, gw := lab.Pod("a"), lab.EgressGateway()
	api := lab.Host("api.example.com")
	lab.Apply(entries)
	plain := a.Ask("http://api.example.com/")
	sealed := a.Ask("https://api.example.com/")
	plain.Until(a.CheckCalled)
	sealed.Until(a.CheckCalled)

	a.Ask("tcp://api.example.com:9000").Until(a.CheckCalled)
	long := a.Hold("tcp://" + api.IP.String() + ":9000")
	loads := []func() []probe.Result{plain.Load(), sealed.Load()}
	for _, to := range []topology.Kind{
		topology.SidecarEgress, topology.EgressGateway, topology.IngressOnly,
		topology.EgressGateway, topology.SidecarEgress, topology.IngressOnly,
	} {
		lab.Configure(setTopology(to))
		caller := a
		if to == topology.EgressGateway {
			caller = gw
		}
		a.Ask("http://api.example.com/").Until(caller.CheckCalled)
		a.Ask("https://api.example.com/").Until(caller.CheckCalled)
		if _, err := long.Echo("still there"); err != nil {
			t.Fatalf("a long connection did not outlive the step to %s: %v", to, err)
		}
	}
	for _, stop := range loads {
		wantAllOK(t, stop())
	}
}

func setTopology(k topology.Kind) func(*topology.Config) {
	return func(c *topology.Config) {
		c.Topology = k
		c.Outbound = topology.RegistryOnly
		if k == topology.IngressOnly {
			c.Outbound = topology.AllowAny
		}
	}
}
