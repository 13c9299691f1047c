// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// caseHead is the first document of a case in YAML: who is there. The other
// documents are taken in their order: objects are applied, lists of questions are
// asked.
type caseHead struct {
	// Topology, Outbound and MTLS are the mesh's; topology "all" runs the case in
	// each of the three, with an egress gateway where it belongs.
	Topology topology.Kind           `json:"topology"`
	Outbound topology.OutboundPolicy `json:"outbound"`
	MTLS     topology.MTLSMode       `json:"mtls"`
	// Pods have addresses 10.10.0.1, 10.10.0.2 and so on, gateways come after them.
	Pods     []podHead `json:"pods"`
	Gateways []string  `json:"gateways"`
	// IPv6 gives each of them an address of that family too.
	IPv6 bool `json:"ipv6"`
	// Hosts outside, at 192.0.2.1 and so on; Hosts6 after them, at 2001:db8::<number>.
	Hosts  []string `json:"hosts"`
	Hosts6 []string `json:"hosts6"`
	// Silent are names of addresses where nothing answers, not even by a refusal.
	Silent []string `json:"silent"`
	// Secrets of the control plane's namespace, each a certificate for these names,
	// its key and the CA of the world outside.
	Secrets map[string][]string `json:"secrets"`
	// Mount gives every proxy /etc/outside/{cert,key,ca}.pem: a certificate for this
	// name, its key and the CA of the world outside.
	Mount string `json:"mount"`

	// env of all sidecars besides.
	env map[string]string
}

const allTopologies topology.Kind = "all"

// podHead is a PodSpec, or just the name of a pod with a sidecar.
type podHead struct{ PodSpec }

// UnmarshalJSON reads either.
func (p *podHead) UnmarshalJSON(b []byte) error {
	if strings.HasPrefix(string(b), `"`) {
		return yaml.Unmarshal(b, &p.Name)
	}
	return yaml.UnmarshalStrict(b, &p.PodSpec)
}

// UnmarshalText reads a Proxy by its name.
func (p *Proxy) UnmarshalText(b []byte) error {
	names := map[string]Proxy{"sidecar": Sidecar, "none": None, "router": Router}
	v, ok := names[string(b)]
	if !ok {
		return fmt.Errorf("no such proxy %q", b)
	}
	*p = v
	return nil
}

// Run runs the case in this file of YAML. Its sidecars have env besides their own.
func Run(t *testing.T, file string, env map[string]string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	docs := documents(string(b))
	var head caseHead
	if err := yaml.UnmarshalStrict([]byte(docs[0]), &head); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	head.env = env
	if head.Topology != allTopologies {
		head.run(t, docs[1:])
		return
	}
	for _, k := range []topology.Kind{topology.IngressOnly, topology.SidecarEgress, topology.EgressGateway} {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			h := head
			if h.Topology = k; k == topology.EgressGateway {
				h.Gateways = append(slices.Clone(h.Gateways), "egress")
			}
			h.run(t, docs[1:])
		})
	}
}

func (h caseHead) run(t *testing.T, docs []string) {
	t.Helper()
	l := New(t, h.config)
	if h.IPv6 {
		l.IPv6()
	}
	for name, hosts := range h.Secrets {
		l.Secret(name, hosts...)
	}
	for _, p := range h.Pods {
		env := maps.Clone(h.env)
		maps.Copy(env, p.Env)
		p.Env = env
		l.Add(p.PodSpec)
	}
	for _, g := range h.Gateways {
		map[string]func() *Pod{"ingress": l.IngressGateway, "egress": l.EgressGateway}[g]()
	}
	for _, n := range h.Hosts {
		l.Host(n)
	}
	for _, n := range h.Hosts6 {
		l.Host6(n)
	}
	for _, n := range h.Silent {
		l.Silent(n)
	}
	if h.Mount != "" {
		cert, key, err := l.outside.issue(h.Mount)
		l.must(err)
		for name, file := range map[string]string{"cert": cert, "key": key, "ca": l.OutsideCA()} {
			l.Mount("etc/outside/"+name+".pem", file)
		}
	}
	for _, doc := range docs {
		var qs []question
		if strings.HasPrefix(strings.TrimSpace(withoutComments(doc)), "-") {
			l.must(yaml.UnmarshalStrict([]byte(doc), &qs))
		} else {
			l.Apply(doc)
		}
		for _, q := range qs {
			q.ask(l)
		}
	}
}

func (h caseHead) config(c *topology.Config) {
	if h.Topology == topology.EgressGateway {
		WithEgressGateway(c)
	}
	c.Topology = cmp.Or(h.Topology, c.Topology)
	c.Outbound = cmp.Or(h.Outbound, c.Outbound)
	c.MTLS = cmp.Or(h.MTLS, c.MTLS)
}

// Secret makes a Secret of the control plane's namespace with a certificate of
// the outside CA for these names.
func (l *Lab) Secret(name string, hosts ...string) {
	l.t.Helper()
	cert, key := l.Certificate(hosts...)
	text := base64.StdEncoding.EncodeToString
	l.Apply(fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ndata: {tls.crt: %s, tls.key: %s, ca.crt: %s}\n",
		name, systemNamespace, text(cert), text(key), text(l.OutsideRoot())))
}

// documents splits YAML at its separators; those without content are left out.
func documents(text string) []string {
	return slices.DeleteFunc(strings.Split("\n"+text, "\n---"), func(doc string) bool {
		return strings.TrimSpace(withoutComments(doc)) == ""
	})
}

func withoutComments(doc string) string {
	var out strings.Builder
	for line := range strings.Lines(doc) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			out.WriteString(line)
		}
	}
	return out.String()
}
