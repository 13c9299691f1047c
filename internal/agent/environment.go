// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"github.com/isthmus-mesh/isthmus/internal/agent/bootstrap"
	"github.com/isthmus-mesh/isthmus/internal/agent/credential"
	"github.com/isthmus-mesh/isthmus/internal/agent/proxy"
	"github.com/isthmus-mesh/isthmus/internal/agent/status"
)

// Environment is what injection puts into the container, by name; the names and
// their meaning are Istio's.
type Environment map[string]string

// ParseEnvironment reads key=value lines as of os.Environ.
func ParseEnvironment(lines []string) Environment {
	e := Environment{}
	for _, l := range lines {
		k, v, _ := strings.Cut(l, "=")
		e[k] = v
	}
	return e
}

// Settings are what a command line adds to the environment.
type Settings struct {
	Role bootstrap.Role
	// Root under which every path lies, "/" in a pod.
	Root string
	// EnvoyPath is the program.
	EnvoyPath string
	// Workers when the environment does not say how many; 0 is one per processor.
	Workers int
	// Admin, "" for Istio's port on loopback (sidecar) or a socket (router).
	Admin string
	// StatusPort, HealthPort and MetricsPort of agent and Envoy.
	StatusPort, HealthPort, MetricsPort uint16
	// ClusterDomain of the cluster's services.
	ClusterDomain string
}

// Defaults of lives and drains.
const (
	certificateTTL = 24 * time.Hour
	terminateAfter = 5 * time.Second
	// routerMin is how long a gateway goes on in any case: load balancers hear of
	// its end no sooner than it does. A sidecar ends after its application.
	routerMin = 5 * time.Second
)

// Files that are mounted into the pod (wire contract, 1.1 and 1.4).
const (
	labelsFile      = "etc/istio/pod/labels"
	annotationsFile = "etc/istio/pod/annotations"
	rootFile        = "var/run/secrets/istio/root-cert.pem"
	tokenFile       = "var/run/secrets/tokens/istio-token"
	adminSocket     = "./etc/istio/proxy/admin.sock"
)

// proxyConfig is the part of Istio's ProxyConfig that concerns the agent.
type proxyConfig struct {
	DiscoveryAddress         string `json:"discoveryAddress"`
	Concurrency              *int   `json:"concurrency"`
	DrainDuration            string `json:"drainDuration"`
	TerminationDrainDuration string `json:"terminationDrainDuration"`
	ProxyStatsMatcher        struct {
		InclusionPrefixes []string `json:"inclusionPrefixes"`
		InclusionSuffixes []string `json:"inclusionSuffixes"`
		InclusionRegexps  []string `json:"inclusionRegexps"`
	} `json:"proxyStatsMatcher"`
}

// Configure makes the Config of the environment, the mounted files and the
// command line.
func Configure(e Environment, s Settings) (Config, error) {
	pc := proxyConfig{}
	if text := e["PROXY_CONFIG"]; text != "" {
		if err := json.Unmarshal([]byte(text), &pc); err != nil {
			return Config{}, fmt.Errorf("PROXY_CONFIG: %w", err)
		}
	}
	node, err := e.node(s)
	if err != nil {
		return Config{}, err
	}
	app, err := e.application()
	if err != nil {
		return Config{}, err
	}
	envoy := e.envoy(pc, s)
	drain, err := e.drain(pc, s.Role, &envoy.DrainTime)
	if err != nil {
		return Config{}, err
	}
	c := Config{
		Root:         s.Root,
		Envoy:        envoy,
		StatusListen: net.JoinHostPort("", strconv.Itoa(int(s.StatusPort))),
		Application:  app,
		Drain:        drain,
	}
	if c.Bootstrap, err = e.bootstrap(pc, node, s); err != nil {
		return Config{}, err
	}
	c.Authority, err = e.authority(c.Bootstrap)
	return c, err
}

func (e Environment) bootstrap(pc proxyConfig, n bootstrap.Node, s Settings) (bootstrap.Params, error) {
	if pc.DiscoveryAddress == "" {
		pc.DiscoveryAddress = e["CA_ADDR"]
	}
	host, _, err := net.SplitHostPort(pc.DiscoveryAddress)
	if err != nil {
		return bootstrap.Params{}, fmt.Errorf("discovery address: %w", err)
	}
	p := bootstrap.Params{
		Node:        n,
		Discovery:   pc.DiscoveryAddress,
		ServerName:  or(e["ISTIOD_SAN"], host),
		Admin:       s.Admin,
		Status:      net.JoinHostPort("127.0.0.1", strconv.Itoa(int(s.StatusPort))),
		MetricsPort: s.MetricsPort,
		HealthPort:  s.HealthPort,
		Stats: bootstrap.Stats{
			Prefixes: pc.ProxyStatsMatcher.InclusionPrefixes,
			Suffixes: pc.ProxyStatsMatcher.InclusionSuffixes,
			Regexps:  pc.ProxyStatsMatcher.InclusionRegexps,
		},
	}
	if p.Protocol, err = e.protocol(); err != nil {
		return bootstrap.Params{}, err
	}
	for key, list := range map[string]*[]string{
		"sidecar.istio.io/statsInclusionPrefixes": &p.Stats.Prefixes,
		"sidecar.istio.io/statsInclusionSuffixes": &p.Stats.Suffixes,
		"sidecar.istio.io/statsInclusionRegexps":  &p.Stats.Regexps,
	} {
		if v := n.Annotations[key]; v != "" {
			*list = strings.Split(v, ",")
		}
	}
	if p.Admin == "" {
		p.Admin = "127.0.0.1:15000"
		if s.Role == bootstrap.Router {
			p.Admin = adminSocket
		}
	}
	return p, nil
}

// protocol of discovery, by Istio's variable.
func (e Environment) protocol() (bootstrap.Protocol, error) {
	v := e["ISTIO_DELTA_XDS"]
	if v == "" {
		return bootstrap.Delta, nil
	}
	delta, err := strconv.ParseBool(v)
	if err != nil {
		return "", fmt.Errorf("ISTIO_DELTA_XDS is %q: use true or false", v)
	}
	if !delta {
		return bootstrap.StateOfTheWorld, nil
	}
	return bootstrap.Delta, nil
}

func (e Environment) authority(p bootstrap.Params) (credential.Authority, error) {
	a := credential.Authority{
		Address: or(e["CA_ADDR"], p.Discovery), ServerName: p.ServerName,
		RootFile: rootFile, TokenFile: tokenFile,
		ClusterID: or(e["ISTIO_META_CLUSTER_ID"], "Kubernetes"),
		TTL:       certificateTTL,
	}
	a.Identity = fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", or(e["TRUST_DOMAIN"], "cluster.local"), p.Node.Namespace, or(p.Node.ServiceAccount, "default"))
	if v := e["SECRET_TTL"]; v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			return a, fmt.Errorf("SECRET_TTL: %w", err)
		}
		a.TTL = d
	}
	return a, nil
}

// node gathers who we are: of the environment, and of the files that the kubelet
// keeps up to date (as they are now: Envoy's node is fixed for its life).
func (e Environment) node(s Settings) (bootstrap.Node, error) {
	n := bootstrap.Node{
		Role: s.Role, Name: e["POD_NAME"], Namespace: e["POD_NAMESPACE"],
		ClusterDomain: s.ClusterDomain, ServiceAccount: e["SERVICE_ACCOUNT"], Workload: e["ISTIO_META_WORKLOAD_NAME"],
		// This Envoy takes virtual hosts one by one (docs/decisions/0012).
		Metadata: map[string]any{"ISTHMUS_DISCOVERY": "Full"},
	}
	var err error
	if n.IPs, err = e.addresses(); err != nil {
		return n, err
	}
	if n.Labels, err = downward(s.Root, labelsFile); err != nil {
		return n, err
	}
	if n.Annotations, err = downward(s.Root, annotationsFile); err != nil {
		return n, err
	}
	for _, k := range slices.Sorted(maps.Keys(e)) {
		if name, ok := strings.CutPrefix(k, "ISTIO_META_"); ok {
			n.Metadata[name] = e[k]
		}
		if _, ok := strings.CutPrefix(k, "ISTIO_METAJSON_"); ok {
			var more map[string]any
			if err := json.Unmarshal([]byte(e[k]), &more); err != nil {
				return n, fmt.Errorf("%s: %w", k, err)
			}
			maps.Copy(n.Metadata, more)
		}
	}
	n.Metadata["ENVOY_STATUS_PORT"], n.Metadata["ENVOY_PROMETHEUS_PORT"] = float64(s.HealthPort), float64(s.MetricsPort)
	if text := e["PROXY_CONFIG"]; text != "" {
		var whole map[string]any
		if err := json.Unmarshal([]byte(text), &whole); err != nil {
			return n, fmt.Errorf("PROXY_CONFIG: %w", err)
		}
		n.Metadata["PROXY_CONFIG"] = whole
	}
	return n, nil
}

// addresses of the pod; the first one is the one that Kubernetes calls the pod's.
func (e Environment) addresses() ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range append([]string{e["INSTANCE_IP"]}, strings.Split(e["INSTANCE_IPS"], ",")...) {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("INSTANCE_IP(S): %w", err)
		}
		if ip = ip.Unmap(); !slices.Contains(out, ip) {
			out = append(out, ip)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("INSTANCE_IP is not set")
	}
	return out, nil
}

func (e Environment) application() (Application, error) {
	probers, err := status.ParseProbers(e["ISTIO_KUBE_APP_PROBERS"])
	if err != nil {
		return Application{}, fmt.Errorf("ISTIO_KUBE_APP_PROBERS: %w", err)
	}
	metrics, err := status.ParseTarget(e["ISTIO_PROMETHEUS_ANNOTATIONS"])
	if err != nil {
		return Application{}, fmt.Errorf("ISTIO_PROMETHEUS_ANNOTATIONS: %w", err)
	}
	return Application{Probers: probers, Metrics: metrics}, nil
}

// drain reads Istio's durations: two of the end, and that of listeners which change.
func (e Environment) drain(pc proxyConfig, role bootstrap.Role, listeners *time.Duration) (proxy.Drain, error) {
	d := proxy.Drain{Max: terminateAfter, Clock: clock.RealClock{}}
	if role == bootstrap.Router {
		d.Min = routerMin
	}
	for name, v := range map[string]struct {
		text string
		into *time.Duration
	}{
		"drainDuration":            {pc.DrainDuration, listeners},
		"terminationDrainDuration": {pc.TerminationDrainDuration, &d.Max},
		"MINIMUM_DRAIN_DURATION":   {e["MINIMUM_DRAIN_DURATION"], &d.Min},
	} {
		if v.text == "" {
			continue
		}
		t, err := time.ParseDuration(v.text)
		if err != nil {
			return d, fmt.Errorf("%s: %w", name, err)
		}
		*v.into = t
	}
	return d, nil
}

// envoy's command. It gets our environment, for configurations may name variables.
func (e Environment) envoy(pc proxyConfig, s Settings) proxy.Command {
	c := proxy.Command{
		Path: s.EnvoyPath, Concurrency: s.Workers,
		LogLevel: e["PROXY_LOG_LEVEL"], ComponentLogLevel: e["COMPONENT_LOG_LEVEL"],
		Stdout: os.Stdout, Stderr: os.Stderr,
	}
	if pc.Concurrency != nil {
		c.Concurrency = *pc.Concurrency
	}
	for _, k := range slices.Sorted(maps.Keys(e)) {
		c.Env = append(c.Env, k+"="+e[k])
	}
	return c
}

// downward reads a file of the downward API; a gateway may have none.
func downward(root, file string) (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(root, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pod's metadata: %w", err)
	}
	m, err := bootstrap.ParseDownward(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return m, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
