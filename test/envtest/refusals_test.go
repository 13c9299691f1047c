// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/render"
)

func TestBadSpecsAreRefusedWithAReason(t *testing.T) {
	tests := map[string]struct {
		name, spec, want string
	}{
		"no topology":                            {spec: `{}`, want: "spec.topology: Required value"},
		"a topology that is none":                {spec: `{topology: Hybrid}`, want: `supported values: "IngressOnly", "SidecarEgress", "EgressGateway"`},
		"a name that is too long":                {name: strings.Repeat("a", 31), spec: `{topology: IngressOnly}`, want: "at most 30 characters"},
		"a name with a dot":                      {name: "a.b", spec: `{topology: IngressOnly}`, want: "a DNS label"},
		"a gateway that passes any host":         {spec: `{topology: EgressGateway, egress: {policy: AllowAny}}`, want: "egress.policy must be RegistryOnly or absent"},
		"the cluster's own namespace":            {spec: `{topology: IngressOnly, namespace: kube-system}`, want: "a namespace of its own"},
		"the operator's namespace":               {spec: `{topology: IngressOnly, namespace: isthmus-operator}`, want: "a namespace of its own"},
		"a version that is none":                 {spec: `{topology: IngressOnly, version: latest}`, want: "version has the form 1.2.3"},
		"a selector of everything":               {spec: `{topology: IngressOnly, members: {namespaceSelectors: [{}]}}`, want: "an empty selector would make every namespace a member"},
		"an unknown way of injection":            {spec: `{topology: IngressOnly, members: {injection: Some}}`, want: `supported values: "All", "Labelled"`},
		"a trust domain in capitals":             {spec: `{topology: IngressOnly, trust: {domain: Example.COM}}`, want: "a DNS name in lower case"},
		"an unknown mode of mTLS":                {spec: `{topology: IngressOnly, mtls: Maybe}`, want: `supported values: "Permissive", "Strict"`},
		"a gateway named egress":                 {spec: `{topology: IngressOnly, ingress: {gateways: [{name: egress}]}}`, want: "taken by the operator's own parts"},
		"two gateways of one name":               {spec: `{topology: IngressOnly, ingress: {gateways: [{name: a}, {name: a}]}}`, want: "Duplicate value"},
		"a gateway's port of the proxy":          {spec: `{topology: IngressOnly, ingress: {gateways: [{name: a, service: {ports: [{name: http, port: 15021}]}}]}}`, want: "the proxy's own"},
		"two ports of one number":                {spec: `{topology: IngressOnly, ingress: {gateways: [{name: a, service: {ports: [{name: http, port: 80}, {name: http2, port: 80}]}}]}}`, want: "two ports have the same number"},
		"a node port without a node":             {spec: `{topology: IngressOnly, ingress: {gateways: [{name: a, service: {type: ClusterIP, ports: [{name: http, port: 80, nodePort: 30080}]}}]}}`, want: "nodePort needs type"},
		"an external policy without one":         {spec: `{topology: IngressOnly, ingress: {gateways: [{name: a, service: {type: ClusterIP, externalTrafficPolicy: Local}}]}}`, want: "externalTrafficPolicy needs type"},
		"a class without a load balancer":        {spec: `{topology: IngressOnly, ingress: {gateways: [{name: a, service: {type: NodePort, loadBalancerClass: x}}]}}`, want: "loadBalancerClass needs type"},
		"fewer replicas than at least":           {spec: `{topology: IngressOnly, controlPlane: {workload: {replicas: {min: 3, max: 2}}}}`, want: "replicas.max is below replicas.min"},
		"no replica":                             {spec: `{topology: IngressOnly, controlPlane: {workload: {replicas: {min: 0}}}}`, want: "greater than or equal to 1"},
		"a label of the operator":                {spec: `{topology: IngressOnly, controlPlane: {workload: {podLabels: {isthmus.dev/component: x}}}}`, want: "the operator's own"},
		"a wildcard for everything":              {spec: `{topology: SidecarEgress, egress: {destinations: [{name: a, hosts: ["*"], ports: [{number: 443, protocol: TLS}]}]}}`, want: "hosts are DNS names"},
		"a wildcard for a top domain":            {spec: `{topology: SidecarEgress, egress: {destinations: [{name: a, hosts: ["*.com"], ports: [{number: 443, protocol: TLS}]}]}}`, want: "a wildcard for a whole top-level domain"},
		"a destination without ports":            {spec: `{topology: SidecarEgress, egress: {destinations: [{name: a, hosts: [a.example.com], ports: []}]}}`, want: "should have at least 1 items"},
		"a destination's ports twice":            {spec: `{topology: SidecarEgress, egress: {destinations: [{name: a, hosts: [a.example.com], ports: [{number: 443, protocol: TLS}, {number: 443, protocol: TCP}]}]}}`, want: "two ports have the same number"},
		"a protocol that is none":                {spec: `{topology: SidecarEgress, egress: {destinations: [{name: a, hosts: [a.example.com], ports: [{number: 443, protocol: QUIC}]}]}}`, want: "Unsupported value"},
		"a bypass to everywhere":                 {spec: `{topology: EgressGateway, egress: {bypass: [{name: a, cidr: 0.0.0.0/0}]}}`, want: "a bypass to every address leaves no topology"},
		"a bypass to no range":                   {spec: `{topology: EgressGateway, egress: {bypass: [{name: a, cidr: db.example.com}]}}`, want: "cidr is not an address range"},
		"a resolver that is no address":          {spec: `{topology: EgressGateway, egress: {networkPolicy: {dns: {addresses: [dns.example.com]}}}}`, want: "addresses of resolvers are IP addresses"},
		"an opening to both":                     {spec: `{topology: EgressGateway, egress: {networkPolicy: {allow: [{name: a, to: {cidr: 10.0.0.0/8, namespaceSelector: {}}}]}}}`, want: "to names either a cidr or pods"},
		"an opening to nothing":                  {spec: `{topology: EgressGateway, egress: {networkPolicy: {allow: [{name: a, to: {}}]}}}`, want: "to names either a cidr or pods"},
		"an opening to everywhere":               {spec: `{topology: EgressGateway, egress: {networkPolicy: {allow: [{name: a, to: {cidr: "::/0"}}]}}}`, want: "a range of every address is no wall"},
		"a range that ends early":                {spec: `{topology: EgressGateway, egress: {networkPolicy: {allow: [{name: a, to: {cidr: 10.0.0.0/8}, ports: [{number: 90, end: 80}]}]}}}`, want: "the range's end is below its number"},
		"a registry with a scheme":               {spec: `{topology: IngressOnly, images: {registry: "https://registry.example"}}`, want: "registry has no scheme"},
		"an unknown mode of the guard":           {spec: `{topology: EgressGateway, egress: {guard: {mode: Maybe}}}`, want: `supported values: "Enforce", "Warn", "Off"`},
		"an exemption from no rule":              {spec: `{topology: EgressGateway, egress: {guard: {exemptions: [{name: a, namespace: shop, serviceAccount: logs, allow: [], reason: logs, expires: "2030-01-01T00:00:00Z"}]}}}`, want: `should have at least 1 items`},
		"an exemption from a rule that is none":  {spec: `{topology: EgressGateway, egress: {guard: {exemptions: [{name: a, namespace: shop, serviceAccount: logs, allow: [Everything], reason: logs, expires: "2030-01-01T00:00:00Z"}]}}}`, want: `Unsupported value`},
		"an exemption for every namespace":       {spec: `{topology: EgressGateway, egress: {guard: {exemptions: [{name: a, namespace: "*", serviceAccount: logs, allow: [HostPath], reason: logs, expires: "2030-01-01T00:00:00Z"}]}}}`, want: `an exemption is for one namespace`},
		"an exemption for every account":         {spec: `{topology: EgressGateway, egress: {guard: {exemptions: [{name: a, namespace: shop, serviceAccount: "*", allow: [HostPath], reason: logs, expires: "2030-01-01T00:00:00Z"}]}}}`, want: `an exemption is for one service account`},
		"an exemption without a reason":          {spec: `{topology: EgressGateway, egress: {guard: {exemptions: [{name: a, namespace: shop, serviceAccount: logs, allow: [HostPath], reason: " ", expires: "2030-01-01T00:00:00Z"}]}}}`, want: `an exemption says why it is there`},
		"an exemption for ever":                  {spec: `{topology: EgressGateway, egress: {guard: {exemptions: [{name: a, namespace: shop, serviceAccount: logs, allow: [HostPath], reason: logs}]}}}`, want: `expires: Required value`},
		"an exemption until some day":            {spec: `{topology: EgressGateway, egress: {guard: {exemptions: [{name: a, namespace: shop, serviceAccount: logs, allow: [HostPath], reason: logs, expires: soon}]}}}`, want: `expires`},
		"an exemption in capitals":               {spec: `{topology: EgressGateway, egress: {guard: {exemptions: [{name: Logs, namespace: shop, serviceAccount: logs, allow: [HostPath], reason: logs, expires: "2030-01-01T00:00:00Z"}]}}}`, want: `an exemption's name is a DNS label`},
		"an unknown way with pods that are cut":  {spec: `{topology: EgressGateway, transition: {uninjected: Ask}}`, want: `supported values: "Block", "Cut"`},
		"a label that workloads are selected by": {spec: `{topology: IngressOnly, controlPlane: {workload: {podLabels: {app: x}}}}`, want: `the operator's own`},
		"a label that names the revision":        {spec: `{topology: IngressOnly, controlPlane: {workload: {podLabels: {istio.io/rev: x}}}}`, want: `the operator's own`},
		"an annotation of the operator":          {spec: `{topology: IngressOnly, controlPlane: {workload: {podAnnotations: {prometheus.io/port: "1"}}}}`, want: `annotations under prometheus.io/`},
		"a variable of the operator":             {spec: `{topology: IngressOnly, ingress: {gateways: [{name: a, workload: {env: [{name: PROXY_CONFIG, value: x}]}}]}}`, want: `the variable is one that the operator sets itself`},
		"a gateway's name in capitals":           {spec: `{topology: IngressOnly, ingress: {gateways: [{name: Edge}]}}`, want: `a gateway's name is a DNS label`},
		"a gateway named isthmusd":               {spec: `{topology: IngressOnly, ingress: {gateways: [{name: isthmusd}]}}`, want: `taken by the operator's own parts`},
		"a gateway's port that is none":          {spec: `{topology: IngressOnly, ingress: {gateways: [{name: a, service: {ports: [{name: http, port: 70000}]}}]}}`, want: `less than or equal to 65535`},
		"a gateway's port of the status":         {spec: `{topology: IngressOnly, ingress: {gateways: [{name: a, service: {ports: [{name: status-port, port: 80}]}}]}}`, want: `the port status-port is always there`},
		"an unknown type of Service":             {spec: `{topology: IngressOnly, ingress: {gateways: [{name: a, service: {type: ExternalName}}]}}`, want: `Unsupported value`},
		"a destination's name in capitals":       {spec: `{topology: SidecarEgress, egress: {destinations: [{name: Api, hosts: [a.example.com], ports: [{number: 443, protocol: TLS}]}]}}`, want: `a destination's name is a DNS label`},
		"a destination twice":                    {spec: `{topology: SidecarEgress, egress: {destinations: [{name: a, hosts: [a.example.com], ports: [{number: 443, protocol: TLS}]}, {name: a, hosts: [b.example.com], ports: [{number: 443, protocol: TLS}]}]}}`, want: `Duplicate value`},
		"a destination's host with a path":       {spec: `{topology: SidecarEgress, egress: {destinations: [{name: a, hosts: [a.example.com/x], ports: [{number: 443, protocol: TLS}]}]}}`, want: `hosts are DNS names`},
		"a bypass at port 0":                     {spec: `{topology: EgressGateway, egress: {bypass: [{name: a, cidr: 10.0.0.0/8, ports: [0]}]}}`, want: `greater than or equal to 1`},
		"an exception outside any range":         {spec: `{topology: EgressGateway, egress: {networkPolicy: {allow: [{name: a, to: {namespaceSelector: {}, except: [10.0.0.0/8]}}]}}}`, want: `except belongs to a cidr`},
		"pods of no namespace":                   {spec: `{topology: EgressGateway, egress: {networkPolicy: {allow: [{name: a, to: {podSelector: {}}}]}}}`, want: `give a namespaceSelector`},
		"an unknown mode of the wall":            {spec: `{topology: EgressGateway, egress: {networkPolicy: {mode: Warn}}}`, want: `supported values: "Enforce", "Off"`},
		"a CA of another kind":                   {spec: `{topology: IngressOnly, trust: {ca: {type: Vault}}}`, want: `Unsupported value`},
		"a registry with a slash at its end":     {spec: `{topology: IngressOnly, images: {registry: "registry.example/"}}`, want: `no slash at its end`},
		"an unknown level of logs":               {spec: `{topology: IngressOnly, proxy: {logLevel: loud}}`, want: `Unsupported value`},
		"an unknown way of discovery":            {spec: `{topology: IngressOnly, proxy: {discovery: Lazy}}`, want: `Unsupported value`},
		"a patch of no part":                     {spec: `{topology: IngressOnly, patches: [{name: a, target: {kind: Deployment, part: edge}, merge: {spec: {}}}]}`, want: `target.part is isthmusd, egress, or the name of one of ingress.gateways`},
		"a patch of a policy":                    {spec: `{topology: EgressGateway, patches: [{name: a, target: {kind: NetworkPolicy, part: egress}, merge: {spec: {}}}]}`, want: `Unsupported value: "NetworkPolicy"`},
		"a patch of rights":                      {spec: `{topology: IngressOnly, patches: [{name: a, target: {kind: RoleBinding, part: isthmusd}, merge: {spec: {}}}]}`, want: `Unsupported value: "RoleBinding"`},
		"a patch of nothing":                     {spec: `{topology: IngressOnly, patches: [{name: a, target: {kind: Deployment, part: isthmusd}, merge: {}}]}`, want: `a patch changes metadata or spec`},
		"a patch that is a word":                 {spec: `{topology: IngressOnly, patches: [{name: a, target: {kind: Deployment, part: isthmusd}, merge: {spec: "replicas: 1"}}]}`, want: `must be of type object`},
		"a patch of a name":                      {spec: `{topology: IngressOnly, patches: [{name: a, target: {kind: Deployment, part: isthmusd}, merge: {metadata: {name: b}}}]}`, want: `unknown field "spec.patches[0].merge.metadata.name"`},
		"a patch of a label of the operator":     {spec: `{topology: IngressOnly, patches: [{name: a, target: {kind: Deployment, part: isthmusd}, merge: {metadata: {labels: {isthmus.dev/topology: b}}}}]}`, want: `labels under isthmus.dev/ are the operator's own`},
		"two patches of one name":                {spec: `{topology: IngressOnly, patches: [{name: a, target: {kind: Deployment, part: isthmusd}, merge: {spec: {}}}, {name: a, target: {kind: Service, part: isthmusd}, merge: {spec: {}}}]}`, want: `Duplicate value`},
		"a field that is not there":              {spec: `{topology: IngressOnly, magic: true}`, want: `unknown field "spec.magic"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			u := meshOf(t, tt.spec)
			u.SetName("bad")
			if tt.name != "" {
				u.SetName(tt.name)
			}
			err := shared.admin.Create(t.Context(), u, client.DryRunAll, client.FieldValidation("Strict"))
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("refused for another reason than %q: %v", tt.want, err)
			}
		})
	}
}

func TestWhatCannotChangeStays(t *testing.T) {
	u := meshOf(t, `{topology: IngressOnly, suspend: true, ingress: {gateways: [{name: a}]}}`)
	u.SetName("fixed")
	if err := shared.admin.Create(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ path, value, want string }{
		"the namespace":                {"namespace", "elsewhere", "the namespace cannot be changed"},
		"the trust domain":             {"trust.domain", "other.example", "the trust domain cannot be changed"},
		"the class of a load balancer": {"ingress.gateways.0.service.loadBalancerClass", "example.com/lb", "another class"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			changed := u.DeepCopy()
			changed.Object["spec"] = with(changed.Object["spec"], strings.Split(tt.path, "."), tt.value)
			err := shared.admin.Patch(t.Context(), changed, client.MergeFrom(u))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("want %q, got %v", tt.want, err)
			}
		})
	}
	if err := shared.admin.Delete(t.Context(), u); err != nil {
		t.Fatal(err)
	}
}

func TestUnsupportedVersionStalls(t *testing.T) {
	m := newMesh(t, "version", v1alpha1.IngressOnly, func(s *v1alpha1.MeshTopologySpec) { s.Version = "9.9.9" })
	m.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonUnsupportedVersion)
	m.condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonUnsupportedVersion)
	for _, id := range m.inventory() {
		if strings.HasPrefix(id, "Deployment") {
			t.Errorf("half applied: %s", id)
		}
	}
	m.remove()
}

func TestSamplesAreAccepted(t *testing.T) {
	files, err := filepath.Glob("../../config/samples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			objects, err := render.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				if err := shared.admin.Create(t.Context(), o, client.DryRunAll, client.FieldValidation("Strict")); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func meshOf(t *testing.T, spec string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("MeshTopology"))
	var s map[string]any
	if err := yaml.Unmarshal([]byte(spec), &s); err != nil {
		t.Fatal(err)
	}
	u.Object["spec"] = s
	return u
}
