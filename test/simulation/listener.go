// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
)

// run is one walk through one proxy.
type run struct {
	*dice
	config *Config
	req    Request
	conn   connection
	out    Outcome
	// restored tells whether the original destination is another than the proxy's end.
	restored bool
	// peer and sni are of the TLS that ended here, secure whether any did.
	peer   []string
	sni    string
	secure bool
	// alpn is what a filter says to offer upstream.
	alpn []string
	// upstream is the endpoint that has been chosen, for filters behind that choice.
	upstream netip.AddrPort
	// dynamic is the host that a filter has set for a dynamic forward proxy.
	dynamic *Endpoint
}

// Evaluate walks a request through the proxy and returns every way in which it
// may end, the shares adding up to 1.
func Evaluate(c *Config, r Request) []Outcome {
	var out []Outcome
	err := explore(func(d *dice) {
		x := &run{dice: d, config: c, req: r.clone()}
		x.complete()
		if err := x.walk(); err != nil {
			x.end(Undecided, "%v", err)
		}
		x.out.Share, x.out.owner, x.out.alpn = d.share, c, x.alpn
		out = append(out, x.out)
	})
	if err != nil {
		return []Outcome{{Verdict: Undecided, Reason: err.Error(), Share: 1}}
	}
	return out
}

// complete fills in what a client sends unless told otherwise.
func (x *run) complete() {
	r := &x.req
	if !r.isHTTP() {
		r.Protocol = TCP
		return
	}
	if r.Method == "" {
		r.Method = "GET"
	}
	if r.Path == "" {
		r.Path = "/"
	}
}

func (x *run) say(format string, args ...any) {
	x.out.Trace = append(x.out.Trace, fmt.Sprintf(format, args...))
}

// end notes the verdict. What a walk has ended with stays.
func (x *run) end(v Verdict, format string, args ...any) {
	x.out.Verdict, x.out.Reason = v, fmt.Sprintf(format, args...)
}

func (x *run) answer(status int, format string, args ...any) {
	x.out.Status = status
	x.end(Answered, format, args...)
}

func (x *run) walk() error {
	x.say("%s", x.req)
	l := x.accept()
	if l == nil {
		return nil
	}
	x.conn = connection{source: x.req.Source, internal: x.req.Internal != ""}
	if !x.conn.internal {
		x.conn.destination = x.local()
	}
	if err := x.inspect(l); err != nil || x.out.Verdict != "" {
		return err
	}
	if to := x.handOver(l); to != nil {
		l = to
		if err := x.inspect(l); err != nil || x.out.Verdict != "" {
			return err
		}
	}
	x.out.Listener = l.Name
	if x.conn.transport == "" {
		x.conn.transport = "raw_buffer"
	}
	chain, err := x.choose(l)
	if err != nil || chain == nil {
		return err
	}
	x.out.Chain = chain.Name
	return x.serve(chain)
}

// local is the connection's own end before a listener filter restores another.
func (x *run) local() netip.AddrPort {
	if x.req.Accepted.IsValid() {
		return x.req.Accepted
	}
	return x.req.Destination
}

// accept finds the listener whose socket gets the connection.
func (x *run) accept() *listenerv3.Listener {
	if name := x.req.Internal; name != "" {
		for _, l := range x.config.listeners {
			if l.Name == name && l.GetInternalListener() != nil {
				x.say("internal listener %s", name)
				return l
			}
		}
		x.end(Refused, "no internal listener %s", name)
		return nil
	}
	at := x.local()
	l := x.config.listenerAt(at, bound)
	if l == nil {
		x.end(Refused, "no listener has a socket at %s", at)
		return nil
	}
	x.say("listener %s has the socket", l.Name)
	return l
}

func bound(l *listenerv3.Listener) bool {
	return l.GetBindToPort() == nil || l.GetBindToPort().GetValue()
}

// listenerAt prefers the address itself over a wildcard with its port.
func (c *Config) listenerAt(at netip.AddrPort, fit func(*listenerv3.Listener) bool) *listenerv3.Listener {
	var wild *listenerv3.Listener
	for _, l := range c.listeners {
		if l.GetInternalListener() != nil || !fit(l) {
			continue
		}
		for _, a := range addresses(l) {
			ip, err := netip.ParseAddr(a.GetAddress())
			if err != nil || a.GetPortValue() != uint32(at.Port()) {
				continue
			}
			switch {
			case ip == at.Addr():
				return l
			case ip.IsUnspecified() && (ip.Is4() == at.Addr().Is4() || a.GetIpv4Compat()) && wild == nil:
				wild = l
			}
		}
	}
	return wild
}

func addresses(l *listenerv3.Listener) []*corev3.SocketAddress {
	out := []*corev3.SocketAddress{}
	if a := l.GetAddress().GetSocketAddress(); a != nil {
		out = append(out, a)
	}
	for _, more := range l.GetAdditionalAddresses() {
		if a := more.GetAddress().GetSocketAddress(); a != nil {
			out = append(out, a)
		}
	}
	return out
}

// handOver finds the listener of the original destination, where the listener that
// accepted wants that and the connection was redirected.
func (x *run) handOver(l *listenerv3.Listener) *listenerv3.Listener {
	if !l.GetUseOriginalDst().GetValue() || !x.restored {
		return nil
	}
	to := x.config.listenerAt(x.conn.destination, func(*listenerv3.Listener) bool { return true })
	switch to {
	case nil:
		x.say("no listener stands for the original destination %s, so %s keeps it", x.conn.destination, l.Name)
	case l:
		return nil
	default:
		x.say("handed over to listener %s by original destination %s", to.Name, x.conn.destination)
	}
	return to
}

// inspectTimeout is Envoy's, unless a listener has another.
const inspectTimeout = 15 * time.Second

// inspect runs the listener filters.
func (x *run) inspect(l *listenerv3.Listener) error {
	if l.GetUseOriginalDst().GetValue() {
		x.restore()
	}
	for _, f := range l.GetListenerFilters() {
		off, err := x.disabled(f.GetFilterDisabled())
		if err != nil {
			return err
		}
		if off {
			x.say("%s is off for this connection", f.Name)
			continue
		}
		a := f.GetTypedConfig()
		switch {
		case a.MessageIs(&originaldstv3.OriginalDst{}):
			x.restore()
			continue
		case a.MessageIs(&tlsinspectorv3.TlsInspector{}), a.MessageIs(&httpinspectorv3.HttpInspector{}):
		default:
			return notModelled("listener filter %s", f.Name)
		}
		if x.req.Silent {
			if !x.waits(l, f.Name) {
				return nil
			}
			break // a timeout ends all inspection
		}
		if a.MessageIs(&tlsinspectorv3.TlsInspector{}) {
			x.inspectTLS()
		} else {
			x.inspectHTTP()
		}
	}
	return nil
}

func (x *run) restore() {
	if x.conn.internal {
		x.restoreFromState()
		return
	}
	if x.req.Accepted.IsValid() && x.req.Accepted != x.req.Destination {
		x.conn.destination, x.restored = x.req.Destination, true
	}
}

// waits tells what becomes of a client that says nothing: whether it goes on.
func (x *run) waits(l *listenerv3.Listener, filter string) bool {
	d := inspectTimeout
	if t := l.GetListenerFiltersTimeout(); t != nil {
		d = t.AsDuration()
	}
	switch {
	case d == 0:
		x.end(Closed, "%s waits for ever for a client that waits for the server", filter)
	case l.GetContinueOnListenerFiltersTimeout():
		x.say("%s gives up after %s of silence; it goes on with nothing known", filter, d)
		return true
	default:
		x.end(Closed, "%s closes it after %s of silence", filter, d)
	}
	return false
}

func (x *run) inspectTLS() {
	if len(x.req.TLS) == 0 {
		return
	}
	t := x.req.TLS[0]
	x.conn.transport, x.conn.serverName, x.conn.protocols = "tls", strings.ToLower(t.SNI), t.ALPN
	x.say("TLS with server name %q and protocols %q", x.conn.serverName, t.ALPN)
}

func (x *run) inspectHTTP() {
	if x.conn.transport == "tls" {
		return
	}
	if len(x.req.TLS) > 0 {
		return // bytes that look like no HTTP
	}
	switch x.req.Protocol {
	case HTTP10:
		x.conn.protocols = []string{"http/1.0"}
	case HTTP1:
		x.conn.protocols = []string{"http/1.1"}
	case HTTP2:
		x.conn.protocols = []string{"h2c"}
	case TCP:
		x.say("not HTTP")
		return
	}
	x.say("looks like %s", x.req.Protocol)
}

// disabled evaluates the predicate that turns a listener filter off.
func (x *run) disabled(p *listenerv3.ListenerFilterChainMatchPredicate) (bool, error) {
	if p == nil {
		return false, nil
	}
	switch r := p.GetRule().(type) {
	case *listenerv3.ListenerFilterChainMatchPredicate_AnyMatch:
		return r.AnyMatch, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		n := int32(x.conn.destination.Port())
		return n >= r.DestinationPortRange.GetStart() && n < r.DestinationPortRange.GetEnd(), nil
	case *listenerv3.ListenerFilterChainMatchPredicate_NotMatch:
		ok, err := x.disabled(r.NotMatch)
		return !ok, err
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		for _, s := range r.OrMatch.GetRules() {
			if ok, err := x.disabled(s); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_AndMatch:
		for _, s := range r.AndMatch.GetRules() {
			if ok, err := x.disabled(s); !ok || err != nil {
				return ok, err
			}
		}
		return true, nil
	}
	return false, notModelled("listener filter predicate %T", p.GetRule())
}

// choose finds the filter chain; nil after it has ended for lack of one.
func (x *run) choose(l *listenerv3.Listener) (*listenerv3.FilterChain, error) {
	chain, err := x.findChain(l)
	if err != nil {
		return nil, err
	}
	switch {
	case chain != nil:
		x.say("filter chain %q", chain.Name)
	case l.GetDefaultFilterChain() != nil:
		chain = l.GetDefaultFilterChain()
		x.say("no filter chain matches; the default one, %q", chain.Name)
	default:
		x.end(Closed, "no filter chain of %s matches", l.Name)
	}
	return chain, nil
}

func (x *run) findChain(l *listenerv3.Listener) (*listenerv3.FilterChain, error) {
	m := l.GetFilterChainMatcher()
	if m == nil {
		return findChain(l.GetFilterChains(), x.conn, x.say), nil
	}
	name, err := matchTree(m, x.conn)
	if errors.Is(err, errNoMatch) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	x.say("the matcher says filter chain %q", name)
	for _, c := range l.GetFilterChains() {
		if c.Name == name {
			return c, nil
		}
	}
	return nil, nil
}

// Binds tells whether a connection to this address comes to a socket of the proxy.
func (c *Config) Binds(at netip.AddrPort) bool { return c.listenerAt(at, bound) != nil }
