// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"cmp"
	"fmt"
	"net/netip"
	"testing"
)

// mouth is a proxy whose bytes go by CONNECT to 10.9.0.3:15443.
const mouth = `
listeners:
- name: bytes
  address: {socket_address: {address: 0.0.0.0, port_value: 9000}}
  additional_addresses: [{address: {socket_address: {address: 0.0.0.0, port_value: 9001}}}]
  filter_chains:
  - filters:
    - name: dialled
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config
        on_new_connection: [{object_key: dialled, format_string: {text_format_source: {inline_string: "%DOWNSTREAM_LOCAL_ADDRESS%"}}}]
    - name: tcp
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: into}
- name: tunnel
  internal_listener: {}
  filter_chains:
  - filters:
    - name: tcp
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: gateway, tunneling_config: {hostname: "%FILTER_STATE(dialled:PLAIN)%"}}
clusters:
- name: into
  load_assignment: {cluster_name: into, endpoints: [{lb_endpoints: [{endpoint: {address: {envoy_internal_address: {server_listener_name: tunnel}}}}]}]}
- name: gateway
  load_assignment: {cluster_name: gateway, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.9.0.3, port_value: 15443}}}}]}]}
  typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}
  transport_socket:
    name: tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      common_tls_context:
        alpn_protocols: [h2]
        tls_certificate_sds_secret_configs: [{name: default}]
        combined_validation_context: {default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "spiffe://gateway"}}]}}
`

// end is the other one's: where tunnels end for callers named %[1]s, and what they
// are for is within 192.0.2.0/31 on port 9000.
const end = `
listeners:
- name: tunnels
  address: {socket_address: {address: 0.0.0.0, port_value: 15443}}
  filter_chains:
  - transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
        require_client_certificate: true
        common_tls_context:
          tls_certificate_sds_secret_configs: [{name: default}]
          validation_context: {}
    filters:
    - name: http
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: x
        upgrade_configs: [{upgrade_type: CONNECT}]
        route_config: {name: r, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {connect_matcher: {}}, route: {cluster: inner, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}]}]}
        http_filters:
        - {name: rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {policies: {callers: {permissions: [{any: true}], principals: [{authenticated: {principal_name: {exact: "%[1]s"}}}]}}}}}
        - {name: to, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config, on_request_headers: [{object_key: envoy.filters.listener.original_dst.local_ip, format_string: {text_format_source: {inline_string: "%%REQ(:AUTHORITY)%%"}}}]}}
        - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
- name: inner
  internal_listener: {}
  listener_filters: [{name: dst, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}]
  filter_chains:
  - filter_chain_match: {destination_port: 9000, prefix_ranges: [{address_prefix: 192.0.2.0, prefix_len: 31}]}
    filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: dialled}}]
clusters:
- name: inner
  load_assignment: {cluster_name: inner, endpoints: [{lb_endpoints: [{endpoint: {address: {envoy_internal_address: {server_listener_name: inner}}}}]}]}
- name: dialled
  type: ORIGINAL_DST
  lb_policy: CLUSTER_PROVIDED
`

// ends is a world with the two proxies, and applications that answer everywhere else.
type ends struct{ mouth, end *Proxy }

func (e ends) Resolve(string) []netip.Addr { return nil }

func (e ends) Meet(from Sender, to netip.AddrPort) (Place, error) {
	switch {
	case from.Proxy == nil:
		return Place{Proxy: e.mouth}, nil
	case to.Addr() == e.end.Address:
		return Place{Proxy: e.end}, nil
	}
	return Place{App: echo{to}}, nil
}

type echo struct{ at netip.AddrPort }

func (e echo) Serve(r Request) Answer {
	if len(r.TLS) > 0 || r.Carried != nil {
		return Answer{Undecided: "the application got " + r.String()}
	}
	return Answer{By: e.at.String()}
}

func TestBytesInATunnel(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		to, caller, gateway string
		want                string
		hops                int
	}{
		"come out where they were to go":           {want: "an answer by 192.0.2.1:9000", hops: 4},
		"come out where the tunnel allows it only": {to: "192.0.2.2:9000", want: "no answer", hops: 4},
		"and on its port only":                     {to: "192.0.2.1:9001", want: "no answer", hops: 4},
		"are not carried for a stranger":           {caller: "spiffe://other", want: "no answer", hops: 3},
		"do not go to a gateway that is another":   {gateway: "spiffe://other", want: "no answer", hops: 3},
		"come out at each address of the range":    {to: "192.0.2.0:9000", want: "an answer by 192.0.2.0:9000", hops: 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := ends{
				mouth: &Proxy{Name: "a", Config: configFrom(t, mouth), Identity: []string{"spiffe://a"}, Address: netip.MustParseAddr("10.9.0.2")},
				end: &Proxy{
					Name: "gateway", Config: configFrom(t, fmt.Sprintf(end, cmp.Or(tc.caller, "spiffe://a"))),
					Identity: []string{cmp.Or(tc.gateway, "spiffe://gateway")}, Address: netip.MustParseAddr("10.9.0.3"),
				},
			}
			js := Walk(w, Sender{Machine: "a"}, Request{
				Source: netip.MustParseAddrPort("10.9.0.2:4000"), Protocol: TCP,
				Destination: netip.MustParseAddrPort(cmp.Or(tc.to, "192.0.2.1:9000")),
			})
			if len(js) != 1 || js[0].Answer.String() != tc.want || len(js[0].Hops) != tc.hops {
				t.Errorf("want %s after %d proxies, got %d journeys, the first:\n%s", tc.want, tc.hops, len(js), js[0].Explain())
			}
		})
	}
}

func TestNamesOfCertificates(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		wanted string
		have   []string
		want   bool
	}{
		"the very name":                     {"a.example.com", []string{"b.example.com", "a.example.com"}, true},
		"another":                           {"a.example.com", []string{"b.example.com"}, false},
		"a star for the first label":        {"a.example.com", []string{"*.example.com"}, true},
		"a star is not for two":             {"a.b.example.com", []string{"*.example.com"}, false},
		"none":                              {"a.example.com", nil, false},
		"any, where nothing is wanted":      {"", nil, true},
		"a URI is no name of a host":        {"a.example.com", []string{"https://a.example.com"}, false},
		"case does not matter behind stars": {"a.Example.com", []string{"*.example.com"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := TLS{Wanted: For(tc.wanted)}.Trusts(tc.have)
			if err != nil || got != tc.want {
				t.Errorf("trusted: %t %v, want %t", got, err, tc.want)
			}
		})
	}
}
