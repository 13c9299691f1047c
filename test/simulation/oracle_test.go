// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	directv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/test/binaries"
)

// oracle is a real Envoy with listeners on ports of its choice.
type oracle struct {
	admin *http.Client
	ports map[string]uint16
}

// patience bounds every wait; none is for a duration.
const patience = time.Minute

func startEnvoy(t *testing.T, listeners []*listenerv3.Listener) *oracle {
	t.Helper()
	binary := binaries.Path(t, "envoy")
	dir, err := os.MkdirTemp("", "sim") // a short path, for a socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "admin")
	raw, err := protojson.Marshal(&bootstrapv3.Bootstrap{
		Node:            &corev3.Node{Id: "oracle", Cluster: "oracle"},
		Admin:           &bootstrapv3.Admin{Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: socket}}}},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Listeners: listeners},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, binary, "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "error")
	var said strings.Builder
	c.Stderr = &said
	if err := c.Start(); err != nil {
		stop()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = c.Wait(); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	o := &oracle{admin: &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}}
	for limit := time.Now().Add(patience); ; {
		if err = o.listen(len(listeners)); err == nil {
			return o
		}
		select {
		case <-ended:
			t.Fatalf("Envoy ended: %s", said.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(limit) {
			t.Fatalf("Envoy is not ready: %v", err)
		}
	}
}

// listen asks for the ports, once all listeners have one.
func (o *oracle) listen(want int) error {
	if _, err := o.get("/ready"); err != nil {
		return err
	}
	b, err := o.get("/listeners?format=json")
	if err != nil {
		return err
	}
	var list struct {
		Statuses []struct {
			Name    string
			Address struct {
				Socket struct {
					Port uint16 `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	o.ports = map[string]uint16{}
	for _, s := range list.Statuses {
		o.ports[s.Name] = s.Address.Socket.Port
	}
	if len(o.ports) != want {
		return fmt.Errorf("%d listeners of %d", len(o.ports), want)
	}
	return nil
}

func (o *oracle) get(path string) ([]byte, error) {
	res, err := o.admin.Get("http://envoy" + path)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, res.Status)
	}
	return b, err
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func anywhere() *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "0.0.0.0", PortSpecifier: &corev3.SocketAddress_PortValue{},
	}}}
}

// TestChainsAreThoseOfEnvoy makes connections of all sorts to a real Envoy whose
// filter chains answer with their names.
func TestChainsAreThoseOfEnvoy(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 7))
	var listeners []*listenerv3.Listener
	for i := range 60 {
		l := &listenerv3.Listener{
			Name: fmt.Sprint(i), Address: anywhere(),
			ListenerFilters: []*listenerv3.ListenerFilter{{Name: "tls", ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(t, &tlsinspectorv3.TlsInspector{})}}},
			FilterChains:    randomLocalChains(r),
		}
		for _, c := range append(l.FilterChains, &listenerv3.FilterChain{Name: "default"}) {
			c.Filters = []*listenerv3.Filter{{Name: "say", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, &directv3.Config{
				Response: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: c.Name + "\n"}},
			})}}}
			if c.Name == "default" {
				l.DefaultFilterChain = c
			}
		}
		listeners = append(listeners, l)
	}
	o := startEnvoy(t, listeners)
	for _, l := range listeners {
		for range 20 {
			source, to, hello := oneOf(r, "127.0.0.1", "127.0.0.2", "127.1.0.1"), oneOf(r, "127.0.0.1", "127.0.0.3", "127.1.1.1"), randomHello(r)
			at := netip.AddrPortFrom(netip.MustParseAddr(to), o.ports[l.Name])
			got := chainOf(t, source, at, hello)
			req := Request{Source: netip.AddrPortFrom(netip.MustParseAddr(source), 1), Destination: at, Protocol: TCP}
			if hello != nil {
				req.TLS = []TLS{{SNI: hello.ServerName, ALPN: hello.NextProtos}}
			}
			if want := chainOfConfig(t, l, req); got != want {
				t.Errorf("listener %s: Envoy took chain %q, the evaluator %q, for %s of\n%v", l.Name, got, want, req, l.FilterChains)
			}
		}
	}
}

// chainOfConfig asks the evaluator; the port is Envoy's choice.
func chainOfConfig(t *testing.T, l *listenerv3.Listener, r Request) string {
	t.Helper()
	l = proto.CloneOf(l)
	l.Address.GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: uint32(r.Destination.Port())}
	c, err := New(l)
	if err != nil {
		t.Fatal(err)
	}
	return Evaluate(c, r)[0].Chain
}

// randomLocalChains are randomChains without ports, for addresses of loopback.
func randomLocalChains(r *rand.Rand) []*listenerv3.FilterChain {
	local := map[string]string{"10.0.0.0": "127.0.0.0", "10.1.0.0": "127.1.0.0", "10.1.1.1": "127.0.0.1"}
	var out []*listenerv3.FilterChain
	taken := map[string]bool{}
	for _, c := range randomChains(r) {
		m := c.FilterChainMatch
		m.DestinationPort, m.SourcePorts, m.SourceType = nil, nil, listenerv3.FilterChainMatch_ANY
		for _, ranges := range [][]*corev3.CidrRange{m.PrefixRanges, m.DirectSourcePrefixRanges, m.SourcePrefixRanges} {
			for _, p := range ranges {
				if p.AddressPrefix == "127.0.0.0" {
					p.AddressPrefix, p.PrefixLen = "127.0.0.3", wrapperspb.UInt32(32)
					continue
				}
				p.AddressPrefix = local[p.AddressPrefix]
			}
		}
		paths, double := everyPath(m), false
		for _, p := range paths {
			double = double || taken[p]
		}
		if double {
			continue
		}
		for _, p := range paths {
			taken[p] = true
		}
		out = append(out, c)
	}
	return out
}

// randomHello is nil for a client without TLS.
func randomHello(r *rand.Rand) *tls.Config {
	if r.IntN(3) == 0 {
		return nil
	}
	return &tls.Config{
		ServerName: oneOf(r, "a.b.com", "x.b.com", "B.com", "c.com", "org"), NextProtos: some(r, "h2", "http/1.1", "istio"),
		MinVersion: tls.VersionTLS12,
	}
}

// chainOf connects and reads the name that the chain answers with.
func chainOf(t *testing.T, source string, to netip.AddrPort, hello *tls.Config) string {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if hello == nil {
		// Not so short that it might yet become TLS.
		if _, err := c.Write([]byte("hello, hello\n")); err != nil {
			t.Fatal(err)
		}
	} else {
		silent := &sayOnly{Conn: c}
		_ = tls.Client(silent, hello).Handshake()
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) && line == "" {
		t.Fatalf("%s to %s: %v", source, to, err)
	}
	return strings.TrimSpace(line)
}

// sayOnly is a connection of which a handshake gets no answer.
type sayOnly struct{ net.Conn }

func (s *sayOnly) Read([]byte) (int, error) { return 0, io.EOF }

// Write leaves out the alert about the missing answer.
func (s *sayOnly) Write(b []byte) (int, error) {
	if len(b) > 0 && b[0] == 21 {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

func (s *sayOnly) Close() error { return nil }

// TestRoutesAreThoseOfEnvoy sends requests of all sorts to a real Envoy whose
// routes answer with their names.
func TestRoutesAreThoseOfEnvoy(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(11, 11))
	var listeners []*listenerv3.Listener
	for i := range 100 {
		listeners = append(listeners, &listenerv3.Listener{
			Name: fmt.Sprint(i), Address: anywhere(),
			FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{Name: "http", ConfigType: &listenerv3.Filter_TypedConfig{
				TypedConfig: pack(t, randomManager(t, r)),
			}}}}},
		})
	}
	o := startEnvoy(t, listeners)
	for _, l := range listeners {
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), o.ports[l.Name])
		for range 40 {
			req := randomRequest(r, at)
			got := ask(t, req)
			l := proto.CloneOf(l)
			l.Address.GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port())}
			c, err := New(l)
			if err != nil {
				t.Fatal(err)
			}
			out := Evaluate(c, req)[0]
			by := out.Route
			if out.Status != saysName {
				by = out.Location
			}
			if want := fmt.Sprintf("%d %s", out.Status, by); got != want {
				t.Errorf("Envoy answered %q, the evaluator %q, to headers %v:\n%s", got, want, req.Headers, out.Explain())
			}
		}
	}
}

// saysName is the status of answers whose body is the route's name.
const saysName = 299

func randomManager(t *testing.T, r *rand.Rand) *hcmv3.HttpConnectionManager {
	t.Helper()
	table := &routev3.RouteConfiguration{IgnorePortInHostMatching: r.IntN(2) == 0, IgnorePathParametersInPathMatching: r.IntN(2) == 0}
	seen := map[string]bool{}
	for i := range 6 {
		d := oneOf(r, "*", "b", "b.c", "*.c", "*b.c", "b.*", "b:8080", "*.b.c", "B.c", "b*")
		if seen[strings.ToLower(d)] {
			continue
		}
		seen[strings.ToLower(d)] = true
		vh := &routev3.VirtualHost{Name: d, Domains: []string{d}}
		for j := range 1 + r.IntN(6) {
			vh.Routes = append(vh.Routes, randomRoute(r, fmt.Sprintf("%d-%d", i, j)))
		}
		table.VirtualHosts = append(table.VirtualHosts, vh)
	}
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: "x", RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: table},
		NormalizePath: wrapperspb.Bool(r.IntN(2) == 0), MergeSlashes: r.IntN(2) == 0,
		HttpFilters:           []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, &routerv3.Router{})}}},
		StripMatchingHostPort: r.IntN(3) == 0,
	}
	if !m.StripMatchingHostPort && r.IntN(2) == 0 {
		m.StripPortMode = &hcmv3.HttpConnectionManager_StripAnyHostPort{StripAnyHostPort: true}
	}
	return m
}

func randomRoute(r *rand.Rand, name string) *routev3.Route {
	m := &routev3.RouteMatch{}
	switch r.IntN(5) {
	case 0:
		m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: oneOf(r, "/", "/a", "/a/", "/A")}
	case 1:
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: oneOf(r, "/", "/a", "/a/b")}
	case 2:
		m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: oneOf(r, "/a", "/[a-c]+/b", ".*b", "/a|/b")}}
	case 3:
		m.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: oneOf(r, "/a", "/a/b")}
	default:
		m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	}
	if _, regex := m.PathSpecifier.(*routev3.RouteMatch_SafeRegex); !regex && r.IntN(4) == 0 {
		m.CaseSensitive = wrapperspb.Bool(false)
	}
	for range r.IntN(3) {
		m.Headers = append(m.Headers, randomHeader(r))
	}
	if r.IntN(4) == 0 {
		m.QueryParameters = append(m.QueryParameters, randomParameter(r))
	}
	route := &routev3.Route{Name: name, Match: m}
	if r.IntN(6) == 0 {
		route.Action = &routev3.Route_Redirect{Redirect: randomRedirect(r)}
		return route
	}
	route.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
		Status: saysName, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: name}},
	}}
	return route
}

func randomRedirect(r *rand.Rand) *routev3.RedirectAction {
	a := &routev3.RedirectAction{
		HostRedirect: oneOf(r, "", "elsewhere"), PortRedirect: oneOf(r, uint32(0), 8443), StripQuery: r.IntN(2) == 0,
		ResponseCode: oneOf(r, routev3.RedirectAction_MOVED_PERMANENTLY, routev3.RedirectAction_FOUND, routev3.RedirectAction_TEMPORARY_REDIRECT),
	}
	switch r.IntN(3) {
	case 0:
		a.SchemeRewriteSpecifier = &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true}
	case 1:
		a.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: "https"}
	}
	switch r.IntN(3) {
	case 0:
		a.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: "/new"}
	case 1:
		a.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: "/new"}
	}
	return a
}

func randomText(r *rand.Rand) *matcherv3.StringMatcher {
	m := &matcherv3.StringMatcher{IgnoreCase: r.IntN(3) == 0}
	v := oneOf(r, "one", "1", "o", "One")
	switch r.IntN(5) {
	case 0:
		m.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: v}
	case 1:
		m.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: v}
	case 2:
		m.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: v}
	case 3:
		m.MatchPattern = &matcherv3.StringMatcher_Contains{Contains: v}
	default:
		m.IgnoreCase = false
		m.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: oneOf(r, "o.e", "o", ".*", "[0-9]+")}}
	}
	return m
}

func randomHeader(r *rand.Rand) *routev3.HeaderMatcher {
	h := &routev3.HeaderMatcher{
		Name: oneOf(r, "x-a", "x-b", "x-c", ":method", ":authority"), InvertMatch: r.IntN(3) == 0, TreatMissingHeaderAsEmpty: r.IntN(3) == 0,
	}
	switch r.IntN(4) {
	case 0:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: r.IntN(2) == 0}
	case 1:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_RangeMatch{RangeMatch: &typev3.Int64Range{Start: -5, End: oneOf(r, int64(1), 2, 20)}}
	case 2:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: randomText(r)}
	}
	return h
}

func randomParameter(r *rand.Rand) *routev3.QueryParameterMatcher {
	q := &routev3.QueryParameterMatcher{Name: oneOf(r, "q", "p")}
	switch r.IntN(3) {
	case 0:
		q.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: r.IntN(2) == 0}
	case 1:
		q.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: randomText(r)}
	}
	return q
}

func randomRequest(r *rand.Rand, at netip.AddrPort) Request {
	req := Request{
		Source: netip.MustParseAddrPort("127.0.0.1:1"), Destination: at, Protocol: HTTP1,
		Method:    oneOf(r, "GET", "POST"),
		Authority: oneOf(r, "b", "b.c", "B.C", "x.b.c", "b.d", "b:8080", "bb", "a.c", ".c", fmt.Sprintf("b:%d", at.Port())),
		Path:      oneOf(r, "/", "/a", "/a/b", "/A/b", "/ab", "/c/../a", "//a", "/a;x=1", "/b") + oneOf(r, "", "", "?q=one", "?q=1&p", "?p=One", "?q"),
		Headers:   map[string][]string{},
	}
	for _, name := range []string{"x-a", "x-b"} {
		for range r.IntN(3) {
			req.Headers[name] = append(req.Headers[name], oneOf(r, "one", "1", "-3", "ONE", "oo", ""))
		}
	}
	return req
}

// ask sends the request as it is and returns the status, and who answered.
func ask(t *testing.T, r Request) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", r.Destination.String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%s %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\ncontent-length: 0\r\n", r.Method, r.Path, r.Authority)
	for name, values := range r.Headers {
		for _, v := range values {
			text += name + ": " + v + "\r\n"
		}
	}
	if _, err := io.WriteString(c, text+"\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", res.StatusCode, string(b)+res.Header.Get("location"))
}
