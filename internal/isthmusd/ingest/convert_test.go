// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// load parses documents and commits them.
func load(t *testing.T, docs string) *snapshot.Snapshot {
	t.Helper()
	c := Converter{Topology: Defaults(topology.Config{})}
	p, err := parseFile(kinds(), c, []byte(docs))
	if err != nil {
		t.Fatal(err)
	}
	s := snapshot.NewStore(c.Topology, &meshconfig.MeshConfig{})
	snap, _ := s.Commit(func(x *snapshot.Txn) { newRowSet().apply(x, p.objects) })
	return snap
}

var comparers = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.IgnoreFields(model.Service{}, "Object"),
	cmpopts.EquateEmpty(),
}

func TestServices(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		doc  string
		want model.Service
	}{
		"a Service with two addresses": {
			doc: `{apiVersion: v1, kind: Service, metadata: {name: a, namespace: ns, annotations: {networking.istio.io/exportTo: "., x"}},
spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, "fd00::1"], selector: {app: a}, internalTrafficPolicy: Local,
ports: [{name: grpc-api, port: 80, targetPort: api}, {name: dns, port: 53, protocol: UDP}]}}`,
			want: model.Service{
				ServiceKey: model.ServiceKey{Namespace: "ns", Host: "a.ns.svc.cluster.local"}, Name: "a",
				Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("fd00::1/128")},
				Ports: []model.Port{
					{Name: "grpc-api", Number: 80, Protocol: model.GRPC, TargetName: "api"},
					{Name: "dns", Number: 53, Protocol: model.UDP, TargetPort: 53},
				},
				Selector: map[string]string{"app": "a"}, ExportTo: []string{".", "x"}, NodeLocal: true,
			},
		},
		"a headless Service": {
			doc: `{apiVersion: v1, kind: Service, metadata: {name: a, namespace: ns}, spec: {clusterIP: None, publishNotReadyAddresses: true, ports: [{port: 3306}]}}`,
			want: model.Service{
				ServiceKey: model.ServiceKey{Namespace: "ns", Host: "a.ns.svc.cluster.local"}, Name: "a", Headless: true,
				Resolution: model.Passthrough, PublishNotReady: true,
				Ports: []model.Port{{Number: 3306, Protocol: model.TCP, TargetPort: 3306}},
			},
		},
		"an ExternalName Service": {
			doc: `{apiVersion: v1, kind: Service, metadata: {name: a, namespace: ns}, spec: {type: ExternalName, externalName: example.com, ports: [{name: https, port: 443}]}}`,
			want: model.Service{
				ServiceKey: model.ServiceKey{Namespace: "ns", Host: "a.ns.svc.cluster.local"}, Name: "a", External: true,
				ExternalName: "example.com", Resolution: model.DNS,
				Ports: []model.Port{{Name: "https", Number: 443, Protocol: model.HTTPS, TargetPort: 443}},
			},
		},
		"an entry without resolution, for a range": {
			doc: `{apiVersion: networking.istio.io/v1beta1, kind: ServiceEntry, metadata: {name: e, namespace: ns},
spec: {hosts: [Db.Example.com], addresses: [10.1.2.3/8], ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}], exportTo: ["."], subjectAltNames: [x]}}`,
			want: model.Service{
				ServiceKey: model.ServiceKey{Namespace: "ns", Host: "db.example.com"}, External: true, Resolution: model.Passthrough,
				Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, ExportTo: []string{"."}, SubjectAltNames: []string{"x"},
				Ports: []model.Port{{Name: "tls", Number: 443, Protocol: model.TLS, TargetPort: 8443}},
			},
		},
		"an entry inside the mesh that selects": {
			doc: `{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: ns},
spec: {hosts: [db], location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {app: db}}, ports: [{number: 80, name: x, protocol: ""}]}}`,
			want: model.Service{
				ServiceKey: model.ServiceKey{Namespace: "ns", Host: "db"}, Resolution: model.ClientSideLB,
				Selector: map[string]string{"app": "db"}, EndpointsFromWorkloads: true,
				Ports: []model.Port{{Name: "x", Number: 80, Protocol: model.Auto, TargetPort: 80}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := load(t, tc.doc).View(nil, nil).Services()
			if diff := cmp.Diff([]*model.Service{&tc.want}, got, comparers); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		docs string
		key  model.ServiceKey
		want []model.Endpoint
	}{
		"an EndpointSlice with a pod behind it": {
			docs: `
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a-1, namespace: ns, labels: {kubernetes.io/service-name: a}},
 addressType: IPv4, ports: [{name: http, port: 8080}],
 endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: p}, nodeName: x}, {addresses: [10.0.0.2], conditions: {ready: false}}]}
---
{apiVersion: v1, kind: Node, spec: {podCIDRs: [10.0.0.0/24, nonsense]}, metadata: {name: x, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns}, spec: {nodeName: x, containers: [{name: istio-proxy}]}, status: {phase: Running}}`,
			key: model.ServiceKey{Namespace: "ns", Host: "a.ns.svc.cluster.local"},
			want: []model.Endpoint{
				{Address: "10.0.0.1", Ports: map[string]uint32{"http": 8080}, Ready: true, Namespace: "ns", Workload: "p", ServiceAccount: "default", Pod: true, TLSMode: "istio", Locality: "r/z", Node: "x"},
				{Address: "10.0.0.2", Ports: map[string]uint32{"http": 8080}, Namespace: "ns", TLSMode: "disabled"},
			},
		},
		"a DNS entry is its own endpoint": {
			docs: `{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: ns}, spec: {hosts: [a.com], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}}`,
			key:  model.ServiceKey{Namespace: "ns", Host: "a.com"},
			want: []model.Endpoint{{Address: "a.com", Ports: map[string]uint32{"tls": 443}, Ready: true, Namespace: "ns", TLSMode: "disabled"}},
		},
		"an entry's own endpoints": {
			docs: `{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: ns}, spec: {hosts: [a.com], resolution: STATIC, ports: [{number: 443, name: tls, protocol: TLS}],
endpoints: [{address: 1.1.1.1, ports: {tls: 8443}, locality: r/z, weight: 3, labels: {v: a}, serviceAccount: sa}]}}`,
			key: model.ServiceKey{Namespace: "ns", Host: "a.com"},
			want: []model.Endpoint{{Address: "1.1.1.1", Ports: map[string]uint32{"tls": 8443}, Ready: true, Namespace: "ns", TLSMode: "istio",
				Labels: map[string]string{"v": "a"}, Locality: "r/z", Weight: 3, ServiceAccount: "sa"}},
		},
		"workload entries beside an entry that selects": {
			docs: `
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: ns}, spec: {hosts: [a.com], resolution: STATIC, workloadSelector: {labels: {app: a}}, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm, namespace: ns}, spec: {address: 1.1.1.1, labels: {app: a}, ports: {http: 9090}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns, labels: {app: a}}, spec: {containers: []}, status: {podIP: 10.0.0.1}}`,
			key: model.ServiceKey{Namespace: "ns", Host: "a.com"},
			want: []model.Endpoint{
				{Address: "1.1.1.1", Ports: map[string]uint32{"http": 9090}, Ready: true, Namespace: "ns", Workload: "vm", Labels: map[string]string{"app": "a"}, TLSMode: "disabled"},
				{Address: "10.0.0.1", Ports: map[string]uint32{"http": 8080}, Ready: true, Namespace: "ns", Workload: "p", Pod: true, ServiceAccount: "default", Labels: map[string]string{"app": "a"}, TLSMode: "disabled"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, load(t, tc.docs).View(nil, nil).Endpoints(tc.key), comparers); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPortProtocol(t *testing.T) {
	t.Parallel()
	app := func(s string) *string { return &s }
	for name, tc := range map[string]struct {
		number    int32
		name      string
		transport string
		app       *string
		want      model.Protocol
	}{
		"by prefix":                          {80, "http-web", "TCP", nil, model.HTTP},
		"by whole name":                      {80, "http2", "", nil, model.HTTP2},
		"a longer word is no prefix":         {80, "httpfoo", "TCP", nil, model.Auto},
		"grpc-web is a name of two words":    {80, "grpc-web-x", "TCP", nil, model.GRPC},
		"appProtocol before the name":        {80, "tcp-x", "TCP", app("kubernetes.io/h2c"), model.HTTP2},
		"an unknown appProtocol silences it": {80, "tcp-x", "TCP", app("example.com/x"), model.Auto},
		"a protocol known only as bytes":     {80, "mongo", "TCP", nil, model.TCP},
		"server first by number":             {3306, "", "TCP", nil, model.TCP},
		"server first, but named":            {3306, "http", "TCP", nil, model.HTTP},
		"UDP whatever the name":              {80, "http", "UDP", nil, model.UDP},
		"nothing known":                      {6379, "", "TCP", nil, model.Auto},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := portProtocol(tc.number, tc.name, tc.transport, tc.app); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestShortNamesAreCompleted(t *testing.T) {
	t.Parallel()
	v := load(t, `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: ns}
spec:
  hosts: [web, "*.example.com", other.ns]
  gateways: [mesh, gw, far/gw]
  http:
  - match: [{gateways: [gw]}]
    route: [{destination: {host: web}}]
    mirror: {host: mirror}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: ns}
spec: {host: web}
`).View(nil, nil)
	const full = "web.ns.svc.cluster.local"
	vs := v.VirtualServicesByHost(full)
	if len(vs) != 1 || len(v.DestinationRulesByHost(full)) != 1 {
		t.Fatalf("%d virtual services, %d destination rules", len(vs), len(v.DestinationRulesByHost(full)))
	}
	spec := vs[0].Spec
	got := [][]string{spec.Hosts, spec.Gateways, spec.Http[0].Match[0].Gateways, {spec.Http[0].Route[0].Destination.Host, spec.Http[0].Mirror.Host}}
	want := [][]string{{full, "*.example.com", "other.ns"}, {"mesh", "ns/gw", "far/gw"}, {"ns/gw"}, {full, "mirror.ns.svc.cluster.local"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheTopologyComesFromItsConfigMap(t *testing.T) {
	t.Parallel()
	s := load(t, `
apiVersion: v1
kind: ConfigMap
metadata: {name: isthmus-default, namespace: isthmus-system}
data:
  topology: '{name: default, namespace: isthmus-system, topology: SidecarEgress, outbound: RegistryOnly, epoch: e1}'
  mesh: '{outboundTrafficPolicy: {mode: ALLOW_ANY}, enableAutoMtls: false, accessLogFile: /dev/stdout, somethingNew: 1}'
---
apiVersion: v1
kind: ConfigMap
metadata: {name: isthmus-other, namespace: isthmus-system}
data: {topology: 'broken'}
`)
	c, m := s.Config(), s.Mesh()
	if c.Epoch != "e1" || c.TrustDomain != "cluster.local" || c.Topology != topology.SidecarEgress {
		t.Errorf("config: %+v", c)
	}
	if m.GetOutboundTrafficPolicy().GetMode() != meshconfig.MeshConfig_OutboundTrafficPolicy_REGISTRY_ONLY ||
		m.GetEnableAutoMtls().GetValue() || m.GetConnectTimeout().GetSeconds() != 10 || m.GetAccessLogFile() != "/dev/stdout" {
		t.Errorf("mesh: %v", m)
	}
}

func TestSecretsOfTwoForms(t *testing.T) {
	t.Parallel()
	v := load(t, `
{apiVersion: v1, kind: Secret, metadata: {name: tls, namespace: ns}, data: {tls.crt: YQ==, tls.key: Yg==}}
---
{apiVersion: v1, kind: Secret, metadata: {name: generic, namespace: ns}, stringData: {cert: a, key: b, cacert: c}}
---
{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: ns}, data: {password: YQ==}}
`).View(nil, nil)
	for name, want := range map[string]*model.Secret{
		"tls":     {Key: model.Key{Namespace: "ns", Name: "tls"}, Cert: []byte("a"), PrivateKey: []byte("b")},
		"generic": {Key: model.Key{Namespace: "ns", Name: "generic"}, Cert: []byte("a"), PrivateKey: []byte("b"), CA: []byte("c")},
		"other":   nil,
	} {
		if diff := cmp.Diff(want, v.Secret(model.Key{Namespace: "ns", Name: name})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func FuzzParseMesh(f *testing.F) {
	f.Add("{outboundTrafficPolicy: {mode: ALLOW_ANY}, defaultConfig: {proxyMetadata: {A: b}}}")
	f.Fuzz(func(_ *testing.T, s string) {
		_, _ = ParseMesh(s, Defaults(topology.Config{}))
	})
}
