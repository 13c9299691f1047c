// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Proxy says what stands beside the application.
type Proxy int

// Proxies of a pod.
const (
	// Sidecar is an agent with its Envoy, and the redirect to it.
	Sidecar Proxy = iota
	// None: the pod is outside the mesh, or at least its proxy is.
	None
	// Router is a gateway: an agent with its Envoy, and no application.
	Router
)

// PodSpec says what a pod is like. Zero values are the usual.
type PodSpec struct {
	Name string
	// App is the Service to which it belongs, made when its first pod is added;
	// its name unless given.
	App string
	// Namespace "default" and Account the App unless given.
	Namespace, Account string
	Labels             map[string]string
	Proxy              Proxy
	// Ports of the Service by name; the usual ones unless given. A name begins with
	// what the application speaks (http, https, tcp, grpc), or with "any-" and that.
	Ports map[string]int
	// Serve are more arguments of its testapp, Intercept of the redirect.
	Serve, Intercept []string
	// Zone is where the pod is, one that Lab.Zone made; nowhere unless given.
	Zone string
	// Network is one apart from others, see network.go; in Public pods of it whoever is
	// in another may call too.
	Network string
	Public  bool
	// Env of the agent besides.
	Env map[string]string
}

// Pod is a pod of the lab, or a host outside of it.
type Pod struct {
	PodSpec
	IP netip.Addr
	// IP6 is the address that Lab.IPv6 gives.
	IP6 netip.Addr
	// Hosts are the names of a host outside.
	Hosts []string
	lab   *Lab
	space *space
	root  string
	app   *process
	agent *process
	// more are addresses besides IP.
	more []netip.Addr
	// terminating pods are in EndpointSlices as such.
	terminating bool
	dumps       dumps
}

// usualPorts of an application. Those that begin with "any" have no protocol in
// their name, so that it is detected on the wire.
func usualPorts() map[string]int {
	return map[string]int{
		"http": 80, "http-alt": 8080, "https": 443, "tcp": 9000, "grpc": 50051, "mysql": 3306,
		"any-http": 7000, "any-tcp": 7001, "any-grpc": 7002, "any-https": 7003, "any-mysql": 7004,
	}
}

// Pod adds a pod with a sidecar, and a Service of its name.
func (l *Lab) Pod(name string) *Pod {
	l.t.Helper()
	return l.Add(PodSpec{Name: name})
}

// Bare adds a pod without a proxy, and a Service of its name.
func (l *Lab) Bare(name string) *Pod {
	l.t.Helper()
	return l.Add(PodSpec{Name: name, Proxy: None})
}

// IngressGateway adds a gateway that Gateways select by istio: ingressgateway.
func (l *Lab) IngressGateway() *Pod {
	l.t.Helper()
	return l.Add(PodSpec{
		Name: "public-default", Namespace: systemNamespace, Proxy: Router,
		Labels: map[string]string{"istio": "ingressgateway", "isthmus.dev/gateway": "public"},
		Ports:  map[string]int{"http": 80, "https": 443},
	})
}

// EgressGateway adds the gateway of WithEgressGateway.
func (l *Lab) EgressGateway() *Pod {
	l.t.Helper()
	return l.Add(PodSpec{
		Name: egressName, Namespace: systemNamespace, Proxy: Router,
		Labels: map[string]string{"istio": "egressgateway", "isthmus.dev/gateway": "egress"},
		Ports:  map[string]int{"tls": 15443},
	})
}

// Add adds a pod. It is on its way when Add returns; the first request waits for
// all of them.
func (l *Lab) Add(s PodSpec) *Pod {
	l.t.Helper()
	p := &Pod{PodSpec: s, lab: l, IP: l.nextAddress()}
	if l.dual {
		p.IP6 = sixth("fd00:10::", p.IP)
	}
	p.complete()
	var err error
	p.space, err = l.space(p.Namespace, l.zones[p.Zone], p.addresses()...)
	l.must(err)
	l.must(l.router.join(l.t.Context(), p))
	l.pods = append(l.pods, p)
	l.must(l.objects.putPod(p))
	l.must(p.start())
	return p
}

// addresses are those of its interface, the first one being what it goes by.
func (p *Pod) addresses() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{p.IP, p.IP6}, func(ip netip.Addr) bool { return !ip.IsValid() })
}

func (p *Pod) has(ip netip.Addr) bool {
	return ip.IsValid() && (p.IP == ip || p.IP6 == ip || slices.Contains(p.more, ip))
}

func (p *Pod) complete() {
	p.App = cmp.Or(p.App, p.Name)
	p.Namespace = cmp.Or(p.Namespace, "default")
	p.Account = cmp.Or(p.Account, p.App)
	if p.Ports == nil {
		p.Ports = usualPorts()
	}
	labels := map[string]string{"app": p.App}
	for k, v := range p.Labels {
		labels[k] = v
	}
	p.Labels = labels
	p.root = filepath.Join(p.lab.dir, p.Name)
}

func (p *Pod) start() error {
	if p.Proxy != Router {
		if err := p.startApp(); err != nil {
			return err
		}
	}
	if p.Proxy == None {
		return nil
	}
	if err := p.mount(); err != nil {
		return err
	}
	if p.Proxy == Sidecar {
		_, err := run(p.lab.t.Context(), p.space, program{
			name: "intercept", uid: uidRoot, args: append([]string{p.lab.program("isthmus-agent"), "intercept"}, p.Intercept...),
		})
		if err != nil {
			return err
		}
	}
	return p.startAgent()
}

func (p *Pod) startApp() error {
	cert, key, err := p.lab.outside.issue(p.App, p.App+"."+p.Namespace, p.App+"."+p.Namespace+".svc."+clusterDomain)
	if err != nil {
		return err
	}
	args := []string{p.lab.program("testapp"), "serve", "--name", p.Name, "--cert", cert, "--key", key}
	for _, name := range slices.Sorted(keys(p.Ports)) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(name, "any-"), "-")
		args = append(args, "--"+kind, ":"+strconv.Itoa(p.Ports[name]))
	}
	p.app, err = start(p.space, program{name: p.Name + "-app", uid: uidApp, dir: p.lab.dir, args: append(args, p.Serve...)}, p.lab.logs())
	return err
}

// mount writes what the kubelet would mount.
func (p *Pod) mount() error {
	roots, err := os.ReadFile(p.lab.plane.roots)
	if err != nil {
		return err
	}
	token, err := p.lab.token(p.Namespace, p.Account, p.Name)
	if err != nil {
		return err
	}
	var labels strings.Builder
	for _, k := range slices.Sorted(keys(p.Labels)) {
		fmt.Fprintf(&labels, "%s=%q\n", k, p.Labels[k])
	}
	for name, content := range map[string][]byte{
		"var/run/secrets/istio/root-cert.pem": roots,
		"var/run/secrets/tokens/istio-token":  token,
		"etc/istio/pod/labels":                []byte(labels.String()),
		"etc/istio/pod/annotations":           nil,
		"etc/istio/proxy/.keep":               nil,
	} {
		file := filepath.Join(p.root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return err
		}
	}
	return filepath.WalkDir(p.root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uidProxy, uidProxy)
	})
}

func (p *Pod) startAgent() error {
	role := "sidecar"
	if p.Proxy == Router {
		role = "router"
	}
	config, err := json.Marshal(map[string]any{
		"discoveryAddress": planeName + ":15012", "concurrency": 1, "terminationDrainDuration": "5s",
		// What a change of listeners is to cut is cut soon, before a case is over.
		"drainDuration": "1s",
		// Pod.WantGauge asks for these.
		"proxyStatsMatcher": map[string]any{"inclusionSuffixes": []string{"rq_pending_open", "rq_retry_open"}},
	})
	if err != nil {
		return err
	}
	env := map[string]string{
		"POD_NAME": p.Name, "POD_NAMESPACE": p.Namespace, "INSTANCE_IP": p.IP.String(), "SERVICE_ACCOUNT": p.Account,
		"CA_ADDR": planeName + ":15012", "PROXY_CONFIG": string(config), "TRUST_DOMAIN": clusterDomain,
		"ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_META_WORKLOAD_NAME": p.App, "ISTIO_META_NODE_NAME": p.lab.zones[p.Zone].node(),
		"ISTIO_META_MESH_ID": clusterDomain,
		"ISTIO_META_OWNER":   "kubernetes://apis/apps/v1/namespaces/" + p.Namespace + "/deployments/" + p.App,
	}
	if p.IP6.IsValid() {
		env["INSTANCE_IPS"] = p.IP.String() + "," + p.IP6.String()
	}
	if p.Proxy == Sidecar {
		env["ISTIO_META_INTERCEPTION_MODE"] = "REDIRECT"
	}
	if p.Network != "" {
		env["ISTIO_META_NETWORK"] = p.Network
	}
	for k, v := range p.Env {
		env[k] = v
	}
	var lines []string
	for _, k := range slices.Sorted(keys(env)) {
		lines = append(lines, k+"="+env[k])
	}
	p.agent, err = start(p.space, program{
		name: p.Name + "-proxy", uid: uidProxy, dir: p.root, env: lines,
		args: []string{p.lab.program("isthmus-agent"), "proxy", role, "--root", p.root, "--envoy", p.lab.program("envoy")},
	}, p.lab.logs())
	return err
}

// Mount copies a file into every proxy's file system, there at this path.
func (l *Lab) Mount(path, file string) {
	l.t.Helper()
	b, err := os.ReadFile(file)
	l.must(err)
	for _, p := range l.pods {
		to := filepath.Join(p.root, path)
		l.must(os.MkdirAll(filepath.Dir(to), 0o755))
		l.must(os.WriteFile(to, b, 0o644))
	}
}

// ready waits until the proxy has its configuration and the application listens.
func (p *Pod) ready() error {
	for _, proc := range []*process{p.app, p.agent} {
		if proc != nil && proc.ended() {
			return final{fmt.Errorf("%s ended: %w", proc.name, proc.err)}
		}
	}
	if p.agent != nil {
		_, err := p.space.get("tcp", "127.0.0.1:15020", "/healthz/ready")
		return err
	}
	return p.space.do(func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(80)), time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// peersLearn is how long an application that is told to end goes on serving: the
// preStop sleep that every careful Deployment has, for peers hear of its end no
// sooner than it does.
const peersLearn = time.Second

// Stop ends the pod as Kubernetes does one with a native sidecar: it leaves its
// Services, the application ends after its preStop, then the proxy; then it is
// gone.
func (p *Pod) Stop() {
	p.lab.t.Helper()
	p.terminating = true
	p.lab.must(p.lab.objects.putEndpoints())
	if p.app != nil {
		<-time.After(peersLearn)
	}
	for _, proc := range []*process{p.app, p.agent} {
		if proc != nil {
			p.lab.must(proc.stop(15 * time.Second))
		}
	}
	p.lab.forget(p)
	p.lab.must(p.lab.objects.deletePod(p))
}

// Occupy listens on a port of the pod, so that nobody else can.
func (p *Pod) Occupy(port int) {
	p.lab.t.Helper()
	p.lab.must(p.space.do(func() error {
		l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port)))
		if err == nil {
			p.lab.later(func() { _ = l.Close() })
		}
		return err
	}))
}

// Crash ends the pod's processes as a lost node does: at once, without a word to
// anybody. The cluster still lists it.
func (p *Pod) Crash() {
	for _, proc := range []*process{p.agent, p.app} {
		if proc != nil {
			proc.kill()
		}
	}
	// Envoy dies with the agent, though not in the same moment.
	p.lab.must(await(patience, func() error {
		if _, err := p.Admin("/ready"); p.agent != nil && err == nil {
			return fmt.Errorf("the proxy of %s lives on", p.Name)
		}
		return nil
	}))
	p.lab.forget(p)
}

func (l *Lab) forget(p *Pod) {
	l.pods = slices.DeleteFunc(l.pods, func(o *Pod) bool { return o == p })
}

// Find is the pod of this name, or the host outside that has it.
func (l *Lab) Find(name string) *Pod {
	l.t.Helper()
	for _, p := range slices.Concat(l.pods, l.hosts) {
		if p.Name == name || slices.Contains(p.Hosts, name) {
			return p
		}
	}
	l.t.Fatalf("netlab: there is no pod or host %q", name)
	return nil
}
