// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// listeners are the two that do not come from isthmusd: Envoy's own metrics, and
// its health as the agent sees it. Each hands one path to one cluster.
func listeners(p Params) ([]*listenerv3.Listener, error) {
	var out []*listenerv3.Listener
	for _, l := range []struct {
		name, path, cluster string
		port                uint16
	}{
		{name: "stats", path: "/stats/prometheus", cluster: prometheusCluster, port: p.MetricsPort},
		{name: "health", path: "/healthz/ready", cluster: agentCluster, port: p.HealthPort},
	} {
		manager, err := connectionManager(l.name, l.path, l.cluster)
		if err != nil {
			return nil, fmt.Errorf("listener %s: %w", l.name, err)
		}
		first, more := wildcards(p.Node.IPs, l.port)
		out = append(out, &listenerv3.Listener{
			Name:                l.name,
			StatPrefix:          l.name,
			Address:             first,
			AdditionalAddresses: more,
			FilterChains:        []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{manager}}},
		})
	}
	return out, nil
}

func connectionManager(name, path, cluster string) (*listenerv3.Filter, error) {
	router, err := pack(&routerv3.Router{})
	if err != nil {
		return nil, err
	}
	manager, err := pack(&hcmv3.HttpConnectionManager{
		StatPrefix: name,
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			VirtualHosts: []*routev3.VirtualHost{{Name: "backend", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: path}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}},
			}}}},
		}},
		HttpFilters: []*hcmv3.HttpFilter{{Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: router}}},
	})
	if err != nil {
		return nil, err
	}
	return &listenerv3.Filter{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: manager},
	}, nil
}

// wildcards are the addresses that cover the pod's families, the first one first.
func wildcards(ips []netip.Addr, port uint16) (*corev3.Address, []*listenerv3.AdditionalAddress) {
	var hosts []string
	seen := map[string]bool{}
	for _, ip := range ips {
		host := "0.0.0.0"
		if ip.Is6() {
			host = "::"
		}
		if !seen[host] {
			seen[host] = true
			hosts = append(hosts, host)
		}
	}
	var more []*listenerv3.AdditionalAddress
	for _, h := range hosts[1:] {
		more = append(more, &listenerv3.AdditionalAddress{Address: socket(h, port)})
	}
	return socket(hosts[0], port), more
}
