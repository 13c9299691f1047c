// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// passing is a proxy that hands everything to cluster c, and what goes before it.
const passing = `
listeners:
- name: all
  address: {socket_address: {address: 0.0.0.0, port_value: 80}}
  filter_chains:
  - filters:
    - name: http
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: x
        route_config: {name: r, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /old}, route: {cluster: c, timeout: 2s, prefix_rewrite: /new, host_rewrite_literal: other%[1]s}}, {match: {prefix: /}, route: {cluster: c, timeout: 2s%[1]s}}]}]}
        http_filters: [%[2]s{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
clusters:
- name: c
  connect_timeout: 1s
%[3]s
`

func endpoints(t *testing.T, criteria, filters, cluster string) Outcome {
	t.Helper()
	c := configFrom(t, fmt.Sprintf(passing, criteria, filters, cluster))
	return Evaluate(c, Request{
		Source: netip.MustParseAddrPort("10.9.0.1:4000"), Destination: netip.MustParseAddrPort("10.9.0.2:80"),
		Protocol: HTTP1, Authority: "host.example:8080", Path: "/old/path",
	})[0]
}

func TestEndpointsThatMayBePicked(t *testing.T) {
	t.Parallel()
	const at = "{endpoint: {address: {socket_address: {address: 10.0.0.%d, port_value: 80}}}, health_status: %s, metadata: {filter_metadata: {envoy.lb: {version: %s}}}}"
	e := func(n int, health, version string) string { return fmt.Sprintf(at, n, health, version) }
	assignment := func(levels ...string) string {
		s := "  load_assignment:\n    cluster_name: c\n    endpoints:\n"
		for i, l := range levels {
			s += fmt.Sprintf("    - {priority: %d, lb_endpoints: [%s]}\n", i, l)
		}
		return s
	}
	const subsets = "  lb_subset_config: {fallback_policy: %s, subset_selectors: [{keys: [version]}], default_subset: {version: v1}}\n"
	const wanted = ", metadata_match: {filter_metadata: {envoy.lb: {version: v2}}}"
	both := e(1, "HEALTHY", "v1") + ", " + e(2, "HEALTHY", "v2")
	for name, tc := range map[string]struct {
		criteria, cluster string
		want              []string
	}{
		"all that are healthy":                     {cluster: assignment(e(1, "HEALTHY", "v1") + ", " + e(2, "UNKNOWN", "v1") + ", " + e(3, "UNHEALTHY", "v1") + ", " + e(4, "DRAINING", "v1") + ", " + e(5, "HEALTHY", "v1") + ", " + e(6, "HEALTHY", "v1") + ", " + e(7, "HEALTHY", "v1")), want: []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.5:80", "10.0.0.6:80", "10.0.0.7:80"}},
		"nobody is healthy, so everybody is asked": {cluster: assignment(e(1, "UNHEALTHY", "v1")), want: []string{"10.0.0.1:80"}},
		"the first priority only":                  {cluster: assignment(e(1, "HEALTHY", "v1"), e(2, "HEALTHY", "v1")), want: []string{"10.0.0.1:80"}},
		"the next one where the first is gone":     {cluster: assignment(e(1, "UNHEALTHY", "v1"), e(2, "HEALTHY", "v1")), want: []string{"10.0.0.2:80"}},
		"some of each where half of it is gone":    {cluster: assignment(e(1, "UNHEALTHY", "v1")+", "+e(2, "HEALTHY", "v1"), e(3, "HEALTHY", "v1")), want: []string{"10.0.0.2:80", "10.0.0.3:80"}},
		"a subset":                                 {criteria: wanted, cluster: assignment(both) + fmt.Sprintf(subsets, "NO_FALLBACK"), want: []string{"10.0.0.2:80"}},
		"an empty subset":                          {criteria: wanted, cluster: assignment(e(1, "HEALTHY", "v1")) + fmt.Sprintf(subsets, "NO_FALLBACK")},
		"an empty subset that falls back":          {criteria: wanted, cluster: assignment(e(1, "HEALTHY", "v1")) + fmt.Sprintf(subsets, "ANY_ENDPOINT"), want: []string{"10.0.0.1:80"}},
		"no subset asked for, the default one":     {cluster: assignment(both) + fmt.Sprintf(subsets, "DEFAULT_SUBSET"), want: []string{"10.0.0.1:80"}},
		"a name":                                   {cluster: "  type: LOGICAL_DNS\n  load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: a.example, port_value: 443}}}}]}]}\n", want: []string{"a.example:443"}},
		"no original destination without redirect": {cluster: "  type: ORIGINAL_DST\n  lb_policy: CLUSTER_PROVIDED\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := endpoints(t, tc.criteria, "", tc.cluster)
			var got []string
			for _, e := range o.Endpoints {
				got = append(got, e.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\n%s", diff, o.Explain())
			}
			if len(tc.want) == 0 && o.Status != 503 {
				t.Errorf("status %d, want 503", o.Status)
			}
		})
	}
}

func TestRequestsAsTheyLeave(t *testing.T) {
	t.Parallel()
	const one = "  load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}, metadata: {filter_metadata: {envoy.transport_socket_match: {tlsMode: istio}}}}]}]}\n"
	const socket = `{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: fixed, common_tls_context: {%s}}}`
	const options = `  typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, %s}}` + "\n"
	const own = "tls_certificate_sds_secret_configs: [{name: default}]"
	const state = `{name: alpn, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config, on_request_headers: [{object_key: envoy.network.application_protocols, format_string: {text_format_source: {inline_string: "istio-http/1.1,istio"}}}]}}, `
	for name, tc := range map[string]struct {
		filters, cluster string
		want             string
	}{
		"plain": {cluster: one, want: `HTTP/1.1 GET other/new/path from 10.9.0.1:4000 to 10.0.0.1:80`},
		"HTTP/2 of its own": {
			cluster: one + fmt.Sprintf(options, "explicit_http_config: {http2_protocol_options: {}}"),
			want:    `HTTP/2 GET other/new/path from 10.9.0.1:4000 to 10.0.0.1:80`,
		},
		"TLS with a certificate": {
			cluster: one + "  transport_socket: " + fmt.Sprintf(socket, own) + "\n",
			want:    `HTTP/1.1 GET other/new/path in TLS (name "fixed", protocols ["http/1.1"], client ["spiffe://me"]) from 10.9.0.1:4000 to 10.0.0.1:80`,
		},
		"TLS without, named after the host": {
			cluster: one + "  transport_socket: " + fmt.Sprintf(socket, `alpn_protocols: [a]`) + "\n" +
				fmt.Sprintf(options, "upstream_http_protocol_options: {auto_sni: true}, explicit_http_config: {http_protocol_options: {}}"),
			want: `HTTP/1.1 GET other/new/path in TLS (name "other", protocols ["a"], client []) from 10.9.0.1:4000 to 10.0.0.1:80`,
		},
		"protocols that a filter sets": {
			filters: state, cluster: one + "  transport_socket: " + fmt.Sprintf(socket, own) + "\n",
			want: `HTTP/1.1 GET other/new/path in TLS (name "fixed", protocols ["istio-http/1.1" "istio"], client ["spiffe://me"]) from 10.9.0.1:4000 to 10.0.0.1:80`,
		},
		"a socket that the endpoint matches": {
			cluster: one + "  transport_socket_matches: [{name: m, match: {tlsMode: istio}, transport_socket: " + fmt.Sprintf(socket, own) + "}]\n",
			want:    `HTTP/1.1 GET other/new/path in TLS (name "fixed", protocols ["http/1.1"], client ["spiffe://me"]) from 10.9.0.1:4000 to 10.0.0.1:80`,
		},
		"a socket that it does not": {
			cluster: one + "  transport_socket_matches: [{name: m, match: {tlsMode: other}, transport_socket: " + fmt.Sprintf(socket, own) + "}]\n",
			want:    `HTTP/1.1 GET other/new/path from 10.9.0.1:4000 to 10.0.0.1:80`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := endpoints(t, "", tc.filters, tc.cluster)
			if len(o.Endpoints) != 1 {
				t.Fatal(o.Explain())
			}
			r, err := o.Upstream(o.Endpoints[0], o.Endpoints[0].Address, []string{"spiffe://me"})
			if err != nil {
				t.Fatal(err)
			}
			if r.String() != tc.want {
				t.Errorf("got  %s\nwant %s", r, tc.want)
			}
		})
	}
}

// village has one proxy at 10.9.0.2 and applications everywhere else.
type village struct {
	proxy *Proxy
	app   Answer
	empty bool
}

func (v village) Resolve(string) []netip.Addr { return nil }

func (v village) Meet(_ Sender, to netip.AddrPort) (Place, error) {
	switch {
	case to.Addr() == v.proxy.Address:
		return Place{Proxy: v.proxy}, nil
	case v.empty:
		return Place{}, nil
	}
	return Place{App: v}, nil
}

func (v village) Serve(Request) Answer { return v.app }

func TestWhatComesBack(t *testing.T) {
	t.Parallel()
	const refusing = `  typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http_protocol_options: {}}, http_filters: [
    {name: rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: DENY, policies: {never: {principals: [{any: true}], permissions: [{matcher: {name: to, typed_config: {"@type": type.googleapis.com/envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher, upstream_ip: {address_prefix: 10.0.0.66, prefix_len: 32}}}}]}}}}},
    {name: codec, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec}}]}}
`
	const cluster = "  load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: 80}}}}]}]}\n"
	for name, tc := range map[string]struct {
		to    string
		world village
		want  string
	}{
		"an address that the cluster refuses": {"10.0.0.66", village{app: Answer{By: "b", Status: 200}}, "403 by a proxy"},
		"the application's answer":            {"10.0.0.1", village{app: Answer{By: "b", Status: 404}}, "404 by b"},
		"nobody there":                        {"10.0.0.1", village{empty: true}, "503 by a proxy"},
		"an application that takes too long":  {"10.0.0.1", village{app: Answer{By: "b", Status: 200, After: 3 * time.Second}}, "504 by a proxy"},
		"an application in time":              {"10.0.0.1", village{app: Answer{By: "b", Status: 200, After: time.Second}}, "200 by b"},
		"a name that resolves to nothing":     {"no.example", village{}, "503 by a proxy"},
		"a proxy that calls itself":           {"10.9.0.2", village{}, "undecided: it goes round in circles"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind := ""
			if tc.to == "no.example" {
				kind = "  type: STRICT_DNS\n"
			}
			tc.world.proxy = &Proxy{Name: "p", Address: netip.MustParseAddr("10.9.0.2"), Config: configFrom(t, fmt.Sprintf(passing, "", "", kind+refusing+fmt.Sprintf(cluster, tc.to)))}
			js := Walk(tc.world, Sender{Machine: "client"}, Request{
				Source: netip.MustParseAddrPort("10.9.0.1:4000"), Destination: netip.MustParseAddrPort("10.9.0.2:80"), Protocol: HTTP1, Authority: "b",
			})
			if len(js) != 1 || js[0].Answer.String() != tc.want {
				t.Errorf("want %s, got %d journeys, the first:\n%s", tc.want, len(js), js[0].Explain())
			}
		})
	}
}

// FuzzDump feeds what is no dump; it must be refused or read, whatever it is.
func FuzzDump(f *testing.F) {
	f.Add([]byte(`{"configs":[{"static_listeners":[{"listener":{"name":"x","address":{"socketAddress":{"address":"::","portValue":1}}}}]}]}`))
	f.Add([]byte(`{"configs":[{"dynamic_listeners":[{"active_state":{"listener":{"name":"x","filterChains":[{"filters":[{"name":"y","typedConfig":{"@type":"type.googleapis.com/no.such.Type","a":1}}]}]}}}]}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := FromDump(text)
		if err != nil {
			return
		}
		at := netip.MustParseAddrPort("[::1]:1")
		for _, o := range Evaluate(c, Request{Source: at, Destination: at}) {
			if o.Verdict == "" {
				t.Errorf("no verdict:\n%s", o.Explain())
			}
		}
	})
}

func TestAFilterOfAnUnknownTypeIsUndecided(t *testing.T) {
	t.Parallel()
	c, err := FromDump([]byte(`{"configs":[{"dynamic_listeners":[{"active_state":{"listener":{
		"@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
		"name":"x","address":{"socketAddress":{"address":"0.0.0.0","portValue":80}},
		"filterChains":[{"filters":[{"name":"y","typedConfig":{"@type":"type.googleapis.com/no.such.Type","a":1}}]}]}}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort("10.0.0.1:80")
	if o := Evaluate(c, Request{Source: at, Destination: at})[0]; o.Verdict != Undecided {
		t.Error(o.Explain())
	}
}
