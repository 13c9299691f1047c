// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sidecar is a small proxy with all that a listener can choose by.
const sidecar = `
listeners:
- name: outbound
  address: {socket_address: {address: 0.0.0.0, port_value: 15001}}
  use_original_dst: true
  filter_chains:
  - name: loop
    filter_chain_match: {destination_port: 15001}
    filters: [&hole {name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: hole}}]
  default_filter_chain:
    name: rest
    filters: [&pass {name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: pass}}]
- name: 0.0.0.0_80
  address: {socket_address: {address: 0.0.0.0, port_value: 80}}
  bind_to_port: false
  listener_filters:
  - {name: tls, typed_config: &tls {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
  - {name: http, typed_config: &http {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}
  listener_filters_timeout: 1s
  continue_on_listener_filters_timeout: true
  filter_chains:
  - name: web
    filter_chain_match: {application_protocols: [http/1.1, h2c]}
    filters:
    - name: http
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: x
        rds: {route_config_name: "80", config_source: {ads: {}}}
        normalize_path: true
        upgrade_configs: [{upgrade_type: websocket}]
        http_filters:
        - {name: envoy.filters.http.rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}
        - {name: envoy.filters.http.fault, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}
        - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  - name: split
    filter_chain_match: {transport_protocol: tls, server_names: [split]}
    filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, weighted_clusters: {clusters: [{name: v1, weight: 1}, {name: v2, weight: 3}]}}}]
  default_filter_chain: {name: bytes, filters: [*pass]}
- name: 10.0.0.9_80
  address: {socket_address: {address: 10.0.0.9, port_value: 80}}
  bind_to_port: false
  listener_filters: [{name: tls, typed_config: *tls}]
  filter_chains: [{name: only, filter_chain_match: {transport_protocol: tls}, filters: [*hole]}]
- name: 10.0.0.10_80
  address: {socket_address: {address: 10.0.0.10, port_value: 80}}
  bind_to_port: false
  listener_filters: [{name: http, typed_config: *http, filter_disabled: {destination_port_range: {start: 80, end: 81}}}]
  filter_chains: [{name: all, filters: [*pass]}]
- name: inbound
  address: {socket_address: {address: 0.0.0.0, port_value: 15006}}
  listener_filters:
  - {name: dst, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
  - {name: tls, typed_config: *tls}
  filter_chains:
  - name: mutual
    filter_chain_match: {destination_port: 80, transport_protocol: tls, application_protocols: [istio]}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
        require_client_certificate: true
        common_tls_context: {validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: "spiffe://mesh/"}}]}}
    filters:
    - name: rbac
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
        stat_prefix: x
        rules: {policies: {callers: {permissions: [{any: true}], principals: [{authenticated: {principal_name: {exact: "spiffe://mesh/a"}}}]}}}
    - *pass
routes:
- name: "80"
  ignore_port_in_host_matching: true
  virtual_hosts:
  - name: b
    domains: [b]
    routes:
    - {name: gone, match: {path: /gone}, redirect: {path_redirect: /here, https_redirect: true}}
    - {name: teapot, match: {prefix: /teapot}, direct_response: {status: 418}}
    - {name: nowhere, match: {prefix: /nowhere}, route: {cluster: missing}}
    - {name: empty, match: {prefix: /empty}, route: {cluster: hole}}
    - name: broken
      match: {prefix: /broken}
      route: {cluster: v1}
      typed_per_filter_config: {envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 599, percentage: {numerator: 25}}}}
    - name: guarded
      match: {prefix: /guarded}
      route: {cluster: v1}
      typed_per_filter_config: {envoy.filters.http.rbac: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {action: DENY, policies: {all: {permissions: [{any: true}], principals: [{any: true}]}}}}}}
    - {name: canary, match: {prefix: /canary, runtime_fraction: {default_value: {numerator: 10}, runtime_key: x}}, route: {cluster: v2}}
    - {name: default, match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: v1, weight: 90}, {name: v2, weight: 10}]}}}
  - {name: secure, domains: [secure], require_tls: ALL, routes: [{match: {prefix: /}, route: {cluster: v1}}]}
clusters:
- {name: hole, type: STATIC, connect_timeout: 1s}
- {name: pass, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, connect_timeout: 1s}
- {name: v1, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}, connect_timeout: 1s}
- {name: v2, type: EDS, eds_cluster_config: {eds_config: {ads: {}}, service_name: two}, connect_timeout: 1s}
endpoints:
- {cluster_name: v1, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.1.0.1, port_value: 80}}}}]}]}
- {cluster_name: two, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.1.0.2, port_value: 80}}}}]}]}
`

func TestEvaluate(t *testing.T) {
	t.Parallel()
	c := configFrom(t, sidecar)
	client := netip.MustParseAddrPort("10.9.0.1:4000")
	to := func(addr string) Request {
		return Request{Source: client, Destination: netip.MustParseAddrPort(addr), Protocol: TCP}
	}
	web := func(host, path string) Request {
		r := to("10.0.0.1:80")
		r.Protocol, r.Authority, r.Path = HTTP1, host, path
		return r.Outbound()
	}
	tls := func(r Request, layers ...TLS) Request {
		r.TLS = layers
		return r
	}
	mesh := func(peer ...string) Request {
		return tls(to("10.9.0.2:80").Inbound(), TLS{ALPN: []string{"istio"}, Peer: peer})
	}
	silent := func(r Request) Request {
		r.Silent = true
		return r
	}
	upgrade := func(r Request, to string) Request {
		r.Upgrade = to
		return r
	}
	for name, tc := range map[string]struct {
		req  Request
		want []string // summaries
		by   string   // listener/chain/virtual host/route of the first
	}{
		"no listener has the original destination": {to("10.0.0.1:22").Outbound(), []string{"forwarded to cluster pass: 10.0.0.1:22"}, "outbound/rest//"},
		"a connection to the proxy itself":         {to("127.0.0.1:15001"), []string{`closed (no endpoint of cluster "hole": it is empty)`}, "outbound/loop//"},
		"nobody listens":                           {to("10.0.0.1:22"), []string{"refused (no listener has a socket at 10.0.0.1:22)"}, "///"},
		"a listener without a socket is not bound": {to("10.0.0.1:80"), []string{"refused (no listener has a socket at 10.0.0.1:80)"}, "///"},
		"the address itself before the wildcard":   {to("10.0.0.9:80").Outbound(), []string{"closed (no filter chain of 10.0.0.9_80 matches)"}, "10.0.0.9_80///"},
		"plain bytes on a port of HTTP":            {to("10.0.0.1:80").Outbound(), []string{"forwarded to cluster pass: 10.0.0.1:80"}, "0.0.0.0_80/bytes//"},
		"a silent client waits for the inspection": {silent(to("10.0.0.1:80").Outbound()), []string{"forwarded to cluster pass: 10.0.0.1:80"}, "0.0.0.0_80/bytes//"},
		"a silent client is given up":              {silent(to("10.0.0.9:80").Outbound()), []string{"closed (tls closes it after 15s of silence)"}, "///"},
		"an inspection that is off":                {silent(to("10.0.0.10:80").Outbound()), []string{"forwarded to cluster pass: 10.0.0.10:80"}, "10.0.0.10_80/all//"},
		"TLS is told by its server name": {tls(to("10.0.0.1:80").Outbound(), TLS{SNI: "SPLIT"}), []string{
			"25%: forwarded to cluster v1: 10.1.0.1:80", "75%: forwarded to cluster v2: 10.1.0.2:80",
		}, "0.0.0.0_80/split//"},
		"weights split": {web("b:80", "/x"), []string{
			"90%: forwarded to cluster v1: 10.1.0.1:80", "10%: forwarded to cluster v2: 10.1.0.2:80",
		}, "0.0.0.0_80/web/b/default"},
		"a fraction splits, and what is left goes on": {web("b", "/canary"), []string{
			"10%: forwarded to cluster v2: 10.1.0.2:80", "81%: forwarded to cluster v1: 10.1.0.1:80", "9%: forwarded to cluster v2: 10.1.0.2:80",
		}, "0.0.0.0_80/web/b/canary"},
		"a fault splits":                      {web("b", "/broken"), []string{"25%: answered with 599 (fault)", "75%: forwarded to cluster v1: 10.1.0.1:80"}, "0.0.0.0_80/web/b/broken"},
		"a redirect":                          {web("b", "/gone?q=1"), []string{"answered with 301 to https://b/here?q=1 (redirect)"}, "0.0.0.0_80/web/b/gone"},
		"a direct response":                   {web("b", "/teapot/x"), []string{`answered with 418 (direct response of route "teapot")`}, "0.0.0.0_80/web/b/teapot"},
		"a path is normalized first":          {web("b", "/x/../teapot"), []string{`answered with 418 (direct response of route "teapot")`}, "0.0.0.0_80/web/b/teapot"},
		"a cluster that is missing":           {web("b", "/nowhere"), []string{`answered with 503 (there is no cluster "missing")`}, "0.0.0.0_80/web/b/nowhere"},
		"a cluster that is empty":             {web("b", "/empty"), []string{`answered with 503 (no endpoint of cluster "hole": it is empty)`}, "0.0.0.0_80/web/b/empty"},
		"denied for this route":               {web("b", "/guarded"), []string{`answered with 403 (RBAC: policy "all" denies it)`}, "0.0.0.0_80/web/b/guarded"},
		"a host that nobody knows":            {web("c", "/"), []string{"answered with 404 (no virtual host)"}, "0.0.0.0_80/web//"},
		"a host that wants TLS":               {web("secure", "/x"), []string{"answered with 301 to https://secure/x (the host wants TLS)"}, "0.0.0.0_80/web/secure/"},
		"an upgrade that nobody allows":       {upgrade(web("b", "/"), "tunnel"), []string{"answered with 403 (upgrade to tunnel is not allowed)"}, "0.0.0.0_80/web/b/default"},
		"a caller by its certificate":         {mesh("spiffe://mesh/a"), []string{"forwarded to cluster pass: 10.9.0.2:80"}, "inbound/mutual//"},
		"a caller whom no policy allows":      {mesh("spiffe://mesh/b"), []string{`closed (RBAC: no policy allows it (client ["spiffe://mesh/b"]))`}, "inbound/mutual//"},
		"a caller of another trust domain":    {mesh("spiffe://other/a"), []string{`closed (no name of the client's certificate (["spiffe://other/a"]) is accepted)`}, "inbound/mutual//"},
		"a caller without certificate":        {mesh(), []string{"closed (the chain asks for a client certificate and the client has none)"}, "inbound/mutual//"},
		"plaintext where mutual TLS is asked": {to("10.9.0.2:80").Inbound(), []string{"closed (no filter chain of inbound matches)"}, "inbound///"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := Evaluate(c, tc.req)
			var got []string
			for _, o := range out {
				got = append(got, o.Summary())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\n%s", diff, out[0].Explain())
			}
			if by := strings.Join([]string{out[0].Listener, out[0].Chain, out[0].VirtualHost, out[0].Route}, "/"); by != tc.by {
				t.Errorf("by %s, want %s\n%s", by, tc.by, out[0].Explain())
			}
		})
	}
}
