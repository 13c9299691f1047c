// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/test/binaries"
)

// Names of the control plane, as in a cluster.
const (
	systemNamespace = "isthmus-system"
	topologyName    = "default"
	clusterDomain   = "cluster.local"
	egressName      = "egress-default"
	planeName       = "isthmusd-" + topologyName + "." + systemNamespace + ".svc"
)

// Lab is the world of one case.
type Lab struct {
	t         testing.TB
	dir, bin  string
	config    topology.Config
	mesh      string
	router    *router
	dns       *dns
	objects   *objects
	plane     *plane
	pods      []*Pod
	hosts     []*Pod
	zones     map[string]*Zone
	dual      bool
	key       *ecdsa.PrivateKey
	outside   *authority
	addresses int
	// cameTrue are the probes that did, for the report of one that did not.
	cameTrue []string
	// accepted and rejected configurations, as counted by isthmusds that have ended;
	// rejections are provoked, or a fault.
	accepted, rejected int
	provoked           bool
	// undo is what end does, last first.
	undo []func()
}

// New starts a control plane with this topology's configuration, by default that
// of a mesh whose every namespace is a member, IngressOnly, AllowAny, Permissive.
// It skips the test, saying why, where namespaces cannot be made or a program has
// not been built.
func New(t testing.TB, change ...func(*topology.Config)) *Lab {
	t.Helper()
	l := &Lab{t: t, bin: programs(t), dns: &dns{names: map[string][]netip.Addr{}, aliases: map[string]string{}}}
	l.config = defaults()
	for _, c := range change {
		c(&l.config)
	}
	t.Cleanup(l.end)
	l.makeDir()
	l.must(l.start())
	return l
}

// end takes the world apart, after a look at it when the case has failed.
func (l *Lab) end() {
	l.judge()
	l.report()
	for _, f := range slices.Backward(l.undo) {
		f()
	}
}

func (l *Lab) later(f func()) { l.undo = append(l.undo, f) }

func defaults() topology.Config {
	return topology.Config{
		Name: topologyName, Namespace: systemNamespace, Revision: topologyName + "-0-1-0",
		Topology: topology.IngressOnly, Outbound: topology.AllowAny, MTLS: topology.Permissive,
		TrustDomain: clusterDomain, ClusterDomain: clusterDomain, Epoch: "1",
		EgressGateway: nil,
	}
}

// WithEgressGateway changes the configuration to topology EgressGateway, whose
// gateway is the one that Lab.EgressGateway starts.
func WithEgressGateway(c *topology.Config) {
	c.Topology = topology.EgressGateway
	c.EgressGateway = &topology.Gateway{
		Namespace: systemNamespace, Service: egressName, ServiceAccount: egressName,
		Labels: map[string]string{"istio": "egressgateway", "isthmus.dev/gateway": "egress"}, Port: 15443,
	}
}

// WithSidecarEgress changes the configuration to topology SidecarEgress.
func WithSidecarEgress(c *topology.Config) { c.Topology = topology.SidecarEgress }

// WithRegistryOnly refuses hosts that nobody registered.
func WithRegistryOnly(c *topology.Config) { c.Outbound = topology.RegistryOnly }

// WithStrict asks for mutual TLS everywhere.
func WithStrict(c *topology.Config) { c.MTLS = topology.Strict }

// IPv6 gives all pods that come an address of IPv6 too, and their Services.
func (l *Lab) IPv6() { l.dual = true }

// programs finds the repository's bin directory with all that a lab runs.
func programs(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: network namespaces need root")
	}
	for _, name := range []string{"isthmusd", "isthmus-agent", "testapp"} {
		binaries.Path(t, name)
	}
	return filepath.Dir(binaries.Path(t, "envoy"))
}

// makeDir makes a directory with a short name, for sockets lie below it, that
// other users may enter.
func (l *Lab) makeDir() {
	l.t.Helper()
	removeStale()
	dir, err := os.MkdirTemp("", fmt.Sprintf("nl%d-", os.Getpid()))
	l.must(err)
	l.later(func() { _ = os.RemoveAll(dir) })
	l.must(os.Chmod(dir, 0o755))
	l.dir = dir
	for _, d := range []string{"logs", "config", "ca"} {
		l.must(os.Mkdir(filepath.Join(dir, d), 0o755))
	}
}

// removeStale removes directories of test processes that were killed.
func removeStale() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), "nl[0-9]*-*"))
	for _, d := range dirs {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(d), "nl%d-", &pid); err != nil {
			continue
		}
		if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			_ = os.RemoveAll(d)
		}
	}
}

func (l *Lab) start() error {
	var err error
	if l.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	if l.outside, err = newAuthority(l.dir); err != nil {
		return err
	}
	if l.router, err = newRouter(); err != nil {
		return err
	}
	l.later(l.router.space.close)
	stop, err := l.dns.listen(l.router.space)
	if err != nil {
		return err
	}
	l.later(stop)
	l.objects = newObjects(filepath.Join(l.dir, "config"), l.dns)
	if err := l.objects.putConfig(l.config, ""); err != nil {
		return err
	}
	return l.startPlane()
}

// space makes a space with addresses of the lab, in which names resolve as in a
// pod of that namespace; zone is nil for the middle of the world.
func (l *Lab) space(namespace string, z *Zone, ips ...netip.Addr) (*space, error) {
	s, err := newSpace()
	if err != nil {
		return nil, err
	}
	l.later(s.close)
	link, err := l.router.attach(s, ips...)
	if err != nil {
		return nil, err
	}
	if z != nil {
		if err := z.enter(link, ips[0]); err != nil {
			return nil, err
		}
	}
	search := strings.Join([]string{namespace + ".svc." + clusterDomain, "svc." + clusterDomain, clusterDomain}, " ")
	resolv := filepath.Join(l.dir, "resolv-"+namespace)
	if err := writeOnce(resolv, "nameserver "+gateway+"\nsearch "+search+"\noptions ndots:5\n"); err != nil {
		return nil, err
	}
	hosts := filepath.Join(l.dir, "hosts")
	if err := writeOnce(hosts, "127.0.0.1 localhost\n"); err != nil {
		return nil, err
	}
	return s, s.do(func() error {
		if err := bind(resolv, "/etc/resolv.conf"); err != nil {
			return err
		}
		return bind(hosts, "/etc/hosts")
	})
}

// writeOnce leaves a file alone that is there: others are reading it.
func writeOnce(file, content string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	return os.WriteFile(file, []byte(content), 0o644)
}

// nextAddress is the next one of pods.
func (l *Lab) nextAddress() netip.Addr {
	l.addresses++
	return netip.AddrFrom4([4]byte{10, 10, byte(l.addresses >> 8), byte(l.addresses)})
}

func (l *Lab) program(name string) string { return filepath.Join(l.bin, name) }

func (l *Lab) logs() string { return filepath.Join(l.dir, "logs") }

func (l *Lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("netlab: %v", err)
	}
}
