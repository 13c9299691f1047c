// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"net/netip"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
)

// openTunnel makes the bytes what a CONNECT is for.
func (x *run) openTunnel(t *tcpv3.TcpProxy_TunnelingConfig) error {
	if t.GetUsePost() || len(t.GetHeadersToAdd()) > 0 {
		return notModelled("a tunnel by POST, or with headers")
	}
	host, err := x.format(t.GetHostname())
	if err != nil {
		return err
	}
	inside := x.req
	x.req = Request{
		Source: inside.Source, Destination: inside.Destination, State: inside.State,
		Protocol: HTTP2, Method: "CONNECT", Authority: host, Headers: map[string][]string{}, Carried: &inside,
	}
	x.out.opens = true
	x.say("the bytes go into a tunnel to %s", host)
	return nil
}

// endTunnel takes the bytes out of it, where the route does.
func (x *run) endTunnel(a *routev3.RouteAction) {
	if x.req.Carried == nil {
		return
	}
	for _, u := range a.GetUpgradeConfigs() {
		if !strings.EqualFold(u.GetUpgradeType(), x.req.Method) || u.GetConnectConfig() == nil {
			continue
		}
		inside := x.req.Carried.clone()
		inside.Source, inside.State = x.req.Source, x.req.State
		x.req, x.out.ends = inside, true
		x.say("the tunnel ends here")
		return
	}
}

// speaksHTTP tells whether the proxy itself makes a HTTP request of what it sends on.
func (o Outcome) speaksHTTP() bool { return o.opens || o.http && !o.ends }

// HTTP tells whether the proxy took the request for HTTP, a tunnel included.
func (o Outcome) HTTP() bool { return o.http }

// restoredState names what an internal listener takes for the original destination.
const restoredState = "envoy.filters.listener.original_dst.local_ip"

// restoreFromState gives a connection within the proxy an address.
func (x *run) restoreFromState() {
	at, err := netip.ParseAddrPort(x.req.State[restoredState])
	if err != nil {
		return
	}
	x.conn.destination, x.restored = at, true
	x.say("the destination is %s, by filter state", at)
}

// command is one of Envoy's in a format string.
var command = regexp.MustCompile(`%([A-Z_]+)(?:\(([^)]*)\))?%`)

// format fills in a format string. What has no value is "-".
func (x *run) format(text string) (string, error) {
	var unknown error
	out := command.ReplaceAllStringFunc(text, func(c string) string {
		m := command.FindStringSubmatch(c)
		v := ""
		switch m[1] {
		case "DOWNSTREAM_PEER_URI_SAN":
			v = strings.Join(uris(x.peer), ",")
		case "REQUESTED_SERVER_NAME":
			v = x.sni
		case "DOWNSTREAM_LOCAL_ADDRESS":
			v = x.conn.destination.String()
		case "REQ":
			v = x.req.first(m[2])
		case "FILTER_STATE":
			key, _, _ := strings.Cut(m[2], ":")
			v = x.req.State[key]
		default:
			unknown = notModelled("%s in a format", m[1])
		}
		if v == "" {
			return "-"
		}
		return v
	})
	return out, unknown
}
