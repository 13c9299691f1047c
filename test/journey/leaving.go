// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package journey

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// The hosts of the outside: one has a ServiceEntry, the other has none.
const (
	allowed = "allowed"
	other   = "other"
)

func hostname(host string) string { return host + ".outside.test" }

// leavingFreely is IngressOnly: whoever wants to leave leaves.
func leavingFreely() []Flow {
	return []Flow{
		{Name: "client -> allowed host, HTTP", Expect: "200, seen from the pod", Probe: callHost("client", allowed, "http", fromPod)},
		{Name: "client -> allowed host, HTTPS", Expect: "200, seen from the pod", Probe: callHost("client", allowed, "https", fromPod)},
		{Name: "client -> any other host, HTTP", Expect: "200, seen from the pod", Probe: callHost("client", other, "http", fromPod)},
		{Name: "client -> any other host, HTTPS", Expect: "200, seen from the pod", Probe: callHost("client", other, "https", fromPod)},
	}
}

// leavingByAllowList is SidecarEgress: the proxy lets registered hosts through.
func leavingByAllowList() []Flow {
	return []Flow{
		{Name: "client -> allowed host, HTTP", Expect: "200, seen from the pod", Probe: callHost("client", allowed, "http", fromPod)},
		{Name: "client -> allowed host, HTTPS", Expect: "200, seen from the pod", Probe: callHost("client", allowed, "https", fromPod)},
		{Name: "VirtualService on allowed host", Expect: "3 tries in all", Probe: retriesOnce},
		{Name: "client -> forbidden host, HTTP", Expect: "502 by its own proxy", Probe: forbiddenHTTP},
		{Name: "client -> forbidden host, HTTPS", Expect: "refused", Probe: refused("client", "http", "https://"+hostname(other)+"/", "--insecure")},
		{Name: "client -> raw address, TCP", Expect: "refused", Probe: refusedTCP("client", 9000)},
		{Name: "break-out by annotation", Expect: "200, seen from the pod", Probe: callHost("excluded-range", other, "http", fromPod)},
		{Name: "break-out by spec.egress.bypass", Expect: "answered, seen from the pod", Probe: bypass},
	}
}

// leavingByGateway is EgressGateway: nothing gets around the gateway.
func leavingByGateway() []Flow {
	return []Flow{
		{Name: "client -> allowed host, HTTP", Expect: "200, seen from the gateway", Probe: callHost("client", allowed, "http", fromGateway)},
		{Name: "client -> allowed host, HTTPS", Expect: "200, seen from the gateway", Probe: callHost("client", allowed, "https", fromGateway)},
		{Name: "identity at the egress gateway", Expect: "the client's", Probe: identityAtGateway},
		{Name: "VirtualService on allowed host", Expect: "3 tries in all", Probe: retriesOnce},
		{Name: "client -> forbidden host, HTTP", Expect: "502 by its own proxy", Probe: forbiddenHTTP},
		{Name: "client -> forbidden host, HTTPS", Expect: "refused", Probe: refused("client", "http", "https://"+hostname(other)+"/", "--insecure")},
		{Name: "client -> raw address, TCP", Expect: "refused", Probe: refusedTCP("client", 9000)},
		{Name: "client -> raw address, UDP", Expect: "refused", Probe: refusedUDP("client")},
		{Name: "process with uid 1337, TCP", Expect: "refused", Probe: refusedTCP("uid-1337", 80)},
		{Name: "process with uid 1337, UDP", Expect: "refused", Probe: refusedUDP("uid-1337")},
		{Name: "excluded range by annotation", Expect: "refused", Probe: refusedTCP("excluded-range", 9000)},
		{Name: "excluded port by annotation", Expect: "refused", Probe: refusedTCP("excluded-port", 80)},
		{Name: "pod that opted out", Expect: "refused", Probe: refusedTCP("opted-out", 9000)},
		{Name: "another port of the gateway", Expect: "refused", Probe: otherGatewayPort},
		{Name: "bypass by spec.egress.bypass", Expect: "answered, seen from the pod", Probe: bypass},
		{Name: "bypass, by another pod", Expect: "refused", Probe: refusedTCP("uid-1337", 9000)},
	}
}

// origin tells whether a visitor's address is the expected one, and its name for people.
type origin func(ctx context.Context, e *Env, app, address string) (bool, string, error)

func fromPod(ctx context.Context, e *Env, app, address string) (bool, string, error) {
	p, err := e.Pod(ctx, Shop, app)
	if err != nil {
		return false, "", err
	}
	for _, ip := range p.Status.PodIPs {
		if ip.IP == address {
			return true, "the pod's address", nil
		}
	}
	return false, "not the pod's address", nil
}

func fromGateway(ctx context.Context, e *Env, _, address string) (bool, string, error) {
	ips, err := e.GatewayIPs(ctx)
	if err != nil {
		return false, "", err
	}
	if ips[address] {
		return true, "the egress gateway's address", nil
	}
	return false, "not the gateway's address", nil
}

// callHost calls a host outside and asks that host who came.
func callHost(app, host, scheme string, from origin) func(context.Context, *Env) Observation {
	return func(ctx context.Context, e *Env) Observation {
		since, id := time.Now().Add(-time.Second), e.Nonce()
		r, err := e.Call(ctx, Shop, app, "http", scheme+"://"+hostname(host)+"/"+id, "--insecure")
		if err != nil {
			return bad(err)
		}
		vs, err := e.Visits(ctx, host, since, func(v Visit) bool { return strings.Contains(v.Detail, id) })
		if err != nil {
			return bad(err)
		}
		if len(vs) == 0 {
			return judge(false, "log of "+hostname(host)+": nobody came", "%s", r)
		}
		ok, whose, err := from(ctx, e, app, vs[0].From())
		if err != nil {
			return bad(err)
		}
		known := fmt.Sprintf("%s saw %s, %s", hostname(host), vs[0].From(), whose)
		if scheme == "https" {
			ok = ok && vs[0].SNI == hostname(host)
			known += ", SNI " + vs[0].SNI
		}
		return judge(ok && r.Status == 200 && len(vs) == 1, known, "%s", r)
	}
}

// identityAtGateway asks the gateway's access log who it was that called out.
func identityAtGateway(ctx context.Context, e *Env) Observation {
	const want = "spiffe://cluster.local/ns/shop/sa/client"
	since, id := time.Now().Add(-time.Second), e.Nonce()
	r, err := e.Call(ctx, Shop, "client", "http", "http://"+hostname(allowed)+"/"+id)
	if err != nil {
		return bad(err)
	}
	line, err := e.GatewayLog(ctx, id, since)
	if err != nil {
		return bad(err)
	}
	_, peer, _ := strings.Cut(line, "peer=")
	return judge(r.Status == 200 && peer == want, "access log of the egress gateway", "%s", peer)
}

// retriesOnce calls a path that always fails: attempts: 2 means three requests
// at the host, whether the way is direct or through a gateway.
func retriesOnce(ctx context.Context, e *Env) Observation {
	since, id := time.Now().Add(-time.Second), e.Nonce()
	r, err := e.Call(ctx, Shop, "client", "http", "http://"+hostname(allowed)+"/"+id+"?status=503")
	if err != nil {
		return bad(err)
	}
	vs, err := e.Visits(ctx, allowed, since, func(v Visit) bool { return strings.Contains(v.Detail, id) })
	if err != nil {
		return bad(err)
	}
	return judge(r.Status == 503 && len(vs) == 3, fmt.Sprintf("%s counted %d requests", hostname(allowed), len(vs)), "%s after %d tries", r, len(vs))
}

func forbiddenHTTP(ctx context.Context, e *Env) Observation {
	since, id := time.Now().Add(-time.Second), e.Nonce()
	r, err := e.Call(ctx, Shop, "client", "http", "http://"+hostname(other)+"/"+id)
	if err != nil {
		return bad(err)
	}
	line, err := e.ProxyLog(ctx, Shop, "client", id, since)
	if err != nil {
		return bad(err)
	}
	vs, err := e.Visits(ctx, other, since, func(v Visit) bool { return strings.Contains(v.Detail, id) })
	if err != nil {
		return bad(err)
	}
	ok := r.Status == 502 && len(vs) == 0 && strings.Contains(line, "block_all")
	return judge(ok, "client's access log: block_all; "+hostname(other)+" saw nobody", "%s", r)
}

// refused makes a call that must fail, and asks the other host whether anybody came.
func refused(app string, args ...string) func(context.Context, *Env) Observation {
	return func(ctx context.Context, e *Env) Observation {
		since := time.Now()
		r, err := e.Call(ctx, Shop, app, append(args, "--timeout", "2s")...)
		if err != nil {
			return bad(err)
		}
		return unseen(ctx, e, app, other, since, r)
	}
}

func refusedTCP(app string, port int) func(context.Context, *Env) Observation {
	return func(ctx context.Context, e *Env) Observation {
		return refused(app, "tcp", fmt.Sprintf("%s:%d", e.Outside.Scene().Addresses[other], port), "--line", "GET / HTTP/1.0\r\n\r\n")(ctx, e)
	}
}

func refusedUDP(app string) func(context.Context, *Env) Observation {
	return func(ctx context.Context, e *Env) Observation {
		return refused(app, "udp", e.Outside.Scene().Addresses[other]+":9001")(ctx, e)
	}
}

// unseen is the verdict on a call that must not arrive: the caller got nothing,
// and the host saw neither the pod's address nor a gateway's.
func unseen(ctx context.Context, e *Env, app, host string, since time.Time, r Reply) Observation {
	vs, err := e.Visits(ctx, host, since, func(Visit) bool { return true })
	if err != nil {
		return bad(err)
	}
	known := hostname(host) + " saw nobody"
	if len(vs) > 0 {
		known = fmt.Sprintf("%s saw %s", hostname(host), vs[0].From())
	}
	return judge(!r.OK && len(vs) == 0, known, "%s", r)
}

// otherGatewayPort tries the gateway's ports that are not for callers, from the
// one place where no proxy stands between: a process with the proxy's uid.
func otherGatewayPort(ctx context.Context, e *Env) Observation {
	ips, err := e.GatewayIPs(ctx)
	if err != nil {
		return bad(err)
	}
	for ip := range ips {
		for _, port := range []string{"15000", "15020", "15021", "15090"} {
			r, err := e.Call(ctx, Shop, "uid-1337", "tcp", ip+":"+port, "--line", "GET / HTTP/1.0\r\n\r\n", "--timeout", "1s")
			if err != nil {
				return bad(err)
			}
			if r.OK {
				return judge(false, "the caller's own connection", "port %s answered %q", port, r.Text())
			}
		}
	}
	return judge(true, "the caller's own connections", "15000, 15020, 15021, 15090: no answer")
}

// bypass is the way around that the spec opens, for one label, address and port.
func bypass(ctx context.Context, e *Env) Observation {
	since := time.Now().Add(-time.Second)
	r, err := e.Call(ctx, Shop, "reporter", "tcp", e.Outside.Scene().Addresses[other]+":9000")
	if err != nil {
		return bad(err)
	}
	vs, err := e.Visits(ctx, other, since, func(v Visit) bool { return v.Kind == "tcp" })
	if err != nil {
		return bad(err)
	}
	if len(vs) == 0 {
		return judge(false, hostname(other)+" saw nobody", "%s", r)
	}
	ok, whose, err := fromPod(ctx, e, "reporter", vs[len(vs)-1].From())
	if err != nil {
		return bad(err)
	}
	return judge(ok && r.OK, fmt.Sprintf("%s saw %s, %s", hostname(other), vs[len(vs)-1].From(), whose), "%s", r)
}
