// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/allowance"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
	mesh "github.com/isthmus-mesh/isthmus/internal/topology"
)

// testFacts are those of a mesh that has settled in the topology.
func testFacts(kind v1alpha1.TopologyKind) *Facts {
	m := &v1alpha1.MeshTopology{ObjectMeta: metav1.ObjectMeta{Name: "default", UID: "u1", Generation: 1}}
	m.Spec = v1alpha1.MeshTopologySpec{
		Topology: kind, Namespace: "isthmus-system", MTLS: v1alpha1.MTLSPermissive,
		Trust:   v1alpha1.Trust{Domain: "cluster.local", CA: v1alpha1.CA{Type: v1alpha1.CASelfSigned}},
		Ingress: v1alpha1.Ingress{Gateways: []v1alpha1.IngressGateway{{Name: "ingress"}}},
		Egress:  v1alpha1.Egress{NetworkPolicy: v1alpha1.EgressNetworkPolicy{Mode: v1alpha1.PolicyEnforce}},
	}
	return &Facts{
		Settings: Settings{Version: "0.1.0", Registry: "isthmus", ClusterDomain: "cluster.local", Namespace: "isthmus-operator", ServiceAccount: "isthmus-operator"},
		Mesh:     m,
		State:    transition.State{Active: kind, Target: kind},
		Parts: Parts{
			ControlPlane: ready("isthmusd-default-0-1-0"),
			Gateways:     map[string]Gateway{"ingress": {Deployment: ready("ingress-default")}, "egress": {Deployment: ready("egress-default")}},
			Injector:     Injector{Present: true, Trusted: true},
		},
		Cluster:      Cluster{DNS: allowance.Service{Addresses: []string{"10.96.0.10"}}},
		Trust:        Trust{Root: "root", Fingerprint: "f", NotAfter: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC)},
		Published:    mesh.Config{Topology: mesh.Kind(kind), Epoch: "e1"},
		Distribution: Distribution{Asked: true},
		Now:          time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

func ready(name string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DeploymentSpec{Replicas: new(int32(1))},
		Status: appsv1.DeploymentStatus{ReadyReplicas: 1, UpdatedReplicas: 1, Conditions: []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue},
		}},
	}
}

func decide(t *testing.T, f *Facts) *Plan {
	t.Helper()
	p, err := Decide(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func find(t *testing.T, p *Plan, kind, name string) *unstructured.Unstructured {
	t.Helper()
	i := slices.IndexFunc(p.Objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == kind && o.GetName() == name })
	if i < 0 {
		t.Fatalf("no %s %s", kind, name)
	}
	return p.Objects[i]
}

func TestDecideIsPure(t *testing.T) {
	for _, kind := range []v1alpha1.TopologyKind{v1alpha1.IngressOnly, v1alpha1.SidecarEgress, v1alpha1.EgressGateway} {
		f := testFacts(kind)
		before := fmt.Sprintf("%#v", f.Mesh.Spec)
		if diff := cmp.Diff(decide(t, f), decide(t, f)); diff != "" {
			t.Errorf("%s: two plans differ:\n%s", kind, diff)
		}
		if after := fmt.Sprintf("%#v", f.Mesh.Spec); after != before {
			t.Errorf("%s: planning changed the spec", kind)
		}
	}
}

func TestNoObjectIsPlannedTwice(t *testing.T) {
	f := testFacts(v1alpha1.EgressGateway)
	f.Mesh.Spec.Ingress.Gateways = append(f.Mesh.Spec.Ingress.Gateways, v1alpha1.IngressGateway{Name: "second"})
	seen := map[apply.Ref]bool{}
	p := decide(t, f)
	for _, o := range append(p.Ground, p.Objects...) {
		if ref := apply.RefOf(o); seen[ref] {
			t.Errorf("%s is planned twice", ref)
		} else {
			seen[ref] = true
		}
	}
	if got := p.Objects[0].GetKind() + " " + p.Objects[0].GetName(); got != "ConfigMap isthmus-default" {
		t.Errorf("%s comes before the state is durable", got)
	}
}

func TestEffectiveEgressPolicy(t *testing.T) {
	tests := map[string]struct {
		kind v1alpha1.TopologyKind
		spec v1alpha1.EgressPolicy
		want v1alpha1.EgressPolicy
	}{
		"IngressOnly passes any host":           {kind: v1alpha1.IngressOnly, want: v1alpha1.AllowAny},
		"IngressOnly may be told otherwise":     {kind: v1alpha1.IngressOnly, spec: v1alpha1.RegistryOnly, want: v1alpha1.RegistryOnly},
		"SidecarEgress passes registered hosts": {kind: v1alpha1.SidecarEgress, want: v1alpha1.RegistryOnly},
		"SidecarEgress may be told otherwise":   {kind: v1alpha1.SidecarEgress, spec: v1alpha1.AllowAny, want: v1alpha1.AllowAny},
		"EgressGateway may not":                 {kind: v1alpha1.EgressGateway, spec: v1alpha1.AllowAny, want: v1alpha1.RegistryOnly},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := testFacts(tt.kind)
			f.Mesh.Spec.Egress.Policy = tt.spec
			if got := decide(t, f).Config.Outbound; string(got) != string(tt.want) {
				t.Errorf("%s", got)
			}
		})
	}
}

func TestEpochNamesContent(t *testing.T) {
	f := testFacts(v1alpha1.EgressGateway)
	first := decide(t, f).Config.Epoch
	f.Now = f.Now.Add(time.Hour)
	if again := decide(t, f).Config.Epoch; again != first {
		t.Error("time changes the epoch")
	}
	f.Mesh.Spec.Telemetry.AccessLog = &v1alpha1.AccessLog{File: "/dev/stdout", Encoding: "TEXT"}
	if changed := decide(t, f).Config.Epoch; changed == first {
		t.Error("an access log does not change the epoch")
	}
}

func TestWorkloadsFollowSpec(t *testing.T) {
	f := testFacts(v1alpha1.IngressOnly)
	f.Mesh.Spec.Images = v1alpha1.Images{Registry: "registry.example/mesh", PullPolicy: corev1.PullAlways, PullSecrets: []string{"key"}}
	f.Mesh.Spec.ControlPlane.Workload = v1alpha1.Workload{
		Replicas:     v1alpha1.Replicas{Min: 2, Max: new(int32(4)), TargetCPU: 70},
		NodeSelector: map[string]string{"pool": "infra"}, PriorityClassName: "high",
		PodLabels: map[string]string{"team": "a"}, PodAnnotations: map[string]string{"note": "b"},
		Env: []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: "1GiB"}},
	}
	d := find(t, decide(t, f), "Deployment", "isthmusd-default-0-1-0")
	at := func(want any, path ...string) {
		t.Helper()
		if got, _, _ := unstructured.NestedFieldNoCopy(d.Object, path...); !cmp.Equal(got, want) {
			t.Errorf("%v is %v, not %v", path, got, want)
		}
	}
	pod := []string{"spec", "template", "spec"}
	at("2+", "metadata", "annotations", v1alpha1.AnnotationReplicas)
	at(nil, "spec", "replicas")
	at("high", append(pod, "priorityClassName")...)
	at(map[string]any{"pool": "infra"}, append(pod, "nodeSelector")...)
	at([]any{map[string]any{"name": "key"}}, append(pod, "imagePullSecrets")...)
	at("a", "spec", "template", "metadata", "labels", "team")
	at("b", "spec", "template", "metadata", "annotations", "note")
	containers, _, _ := unstructured.NestedSlice(d.Object, append(pod, "containers")...)
	c, _ := containers[0].(map[string]any)
	if c["image"] != "registry.example/mesh/isthmusd:0.1.0" || c["imagePullPolicy"] != "Always" {
		t.Errorf("image %v, pulled %v", c["image"], c["imagePullPolicy"])
	}
	env, _ := c["env"].([]any)
	if !slices.ContainsFunc(env, func(e any) bool { return cmp.Equal(e, map[string]any{"name": "GOMEMLIMIT", "value": "1GiB"}) }) {
		t.Errorf("env %v", env)
	}
}

func TestSummary(t *testing.T) {
	tests := map[string]struct {
		change  func(*Facts)
		failure error
		// want is Ready, Reconciling, Stalled, and Ready's reason.
		want [4]string
	}{
		"all is well": {want: [4]string{"True", "False", "False", v1alpha1.ReasonReady}},
		"the control plane does not serve": {
			change: func(f *Facts) { f.Parts.ControlPlane.Status.Conditions = nil },
			want:   [4]string{"False", "True", "False", v1alpha1.ReasonUnavailable},
		},
		"a gateway gave up": {
			change: func(f *Facts) {
				f.Parts.Gateways["ingress"].Deployment.Status.Conditions = []appsv1.DeploymentCondition{
					{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded"}}
			},
			want: [4]string{"False", "False", "True", v1alpha1.ReasonDeadlineExceeded},
		},
		"CRDs are missing": {
			change: func(f *Facts) { f.Missing = []string{"gateways.networking.istio.io"} },
			want:   [4]string{"False", "True", "False", v1alpha1.ReasonMissing},
		},
		"a version that nobody has": {
			change: func(f *Facts) { f.Mesh.Spec.Version = "9.9.9" },
			want:   [4]string{"False", "False", "True", v1alpha1.ReasonUnsupportedVersion},
		},
		"an apply failed":        {failure: fmt.Errorf("apply: no"), want: [4]string{"False", "True", "False", v1alpha1.ReasonApplyFailed}},
		"the topology must move": {change: func(f *Facts) { f.Mesh.Spec.Topology = v1alpha1.SidecarEgress }, want: [4]string{"False", "True", "False", v1alpha1.ReasonTransition}},
		"proxies lag, which is no illness": {
			change: func(f *Facts) { f.Distribution.Lagging = []distribution.Proxy{{Namespace: "a", Name: "b"}} },
			want:   [4]string{"True", "False", "False", v1alpha1.ReasonReady},
		},
		"the CA ended": {
			change: func(f *Facts) { f.Trust.NotAfter = f.Now.Add(-time.Hour) },
			want:   [4]string{"False", "False", "True", v1alpha1.ReasonUnusable},
		},
		"another mesh has a namespace": {
			change: func(f *Facts) { f.Members.Contested = []string{"shop"} },
			want:   [4]string{"False", "False", "True", v1alpha1.ReasonOverlap},
		},
		"suspended while all is well": {change: func(f *Facts) { f.Mesh.Spec.Suspend = true }, want: [4]string{"True", "False", "False", v1alpha1.ReasonSuspended}},
		"being deleted": {
			change: func(f *Facts) { f.Mesh.DeletionTimestamp = &metav1.Time{Time: f.Now} },
			want:   [4]string{"False", "True", "False", v1alpha1.ReasonDeleting},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := testFacts(v1alpha1.EgressGateway)
			if tt.change != nil {
				tt.change(f)
			}
			s := Status(f, decide(t, f), tt.failure)
			got := [4]string{string(s.Conditions[0].Status), string(s.Conditions[1].Status), string(s.Conditions[2].Status), s.Conditions[0].Reason}
			if got != tt.want {
				t.Errorf("got %v, want %v: %s", got, tt.want, s.Conditions[0].Message)
			}
			if len(s.Conditions) != 12 {
				t.Errorf("%d conditions", len(s.Conditions))
			}
		})
	}
}

func TestEnforcementIsNeverClaimed(t *testing.T) {
	for _, kind := range []v1alpha1.TopologyKind{v1alpha1.IngressOnly, v1alpha1.SidecarEgress, v1alpha1.EgressGateway} {
		for _, mode := range []v1alpha1.PolicyMode{v1alpha1.PolicyEnforce, v1alpha1.PolicyOff} {
			f := testFacts(kind)
			f.Mesh.Spec.Egress.NetworkPolicy.Mode = mode
			if c := f.enforced(decide(t, f)); c.Status != metav1.ConditionUnknown {
				t.Errorf("%s, %s: %s %s", kind, mode, c.Status, c.Reason)
			}
		}
	}
}

func TestWhereServicesAreReached(t *testing.T) {
	got := reached(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"k8s-app": "kube-dns"}, ClusterIPs: []string{"10.96.0.10", "fd00::10"},
			Ports: []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "metrics", Port: 9153}, {Name: "dns-tcp", Port: 53}},
		},
	}, nil)
	if diff := cmp.Diff([]string{"10.96.0.10", "fd00::10"}, got.Addresses); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]mesh.Port{{Protocol: "TCP", Number: 53}, {Protocol: "UDP", Number: 53}}, got.Ports); diff != "" {
		t.Error(diff)
	}
}

func TestWhereACacheOfNamesListens(t *testing.T) {
	daemon := func(hostNetwork bool, args ...string) *appsv1.DaemonSet {
		d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system"}}
		d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "node-local-dns"}}
		d.Spec.Template.Spec = corev1.PodSpec{HostNetwork: hostNetwork, Containers: []corev1.Container{{Args: args}}}
		return d
	}
	pods := map[string]string{"k8s-app": "node-local-dns"}
	tests := map[string]struct {
		in   *appsv1.DaemonSet
		want allowance.Service
	}{
		"on the node":      {daemon(true, "-localip", "169.254.20.10,10.96.0.10", "-conf", "/etc/Corefile"), allowance.Service{Addresses: []string{"169.254.20.10", "10.96.0.10"}}},
		"in one word":      {daemon(true, "--localip=169.254.20.10"), allowance.Service{Addresses: []string{"169.254.20.10"}}},
		"without a value":  {daemon(true, "-localip"), allowance.Service{Addresses: []string{""}}},
		"as a pod":         {daemon(false, "-conf", "/etc/coredns/Corefile"), allowance.Service{Selector: pods}},
		"without the flag": {daemon(true, "-conf", "-localips"), allowance.Service{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.want.Namespace = "kube-system"
			if diff := cmp.Diff(tt.want, listening(tt.in)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMembersMayNotReachWhatIsNoMember(t *testing.T) {
	f := testFacts(v1alpha1.EgressGateway)
	f.Mesh.Spec.Members.NamespaceSelectors = []metav1.LabelSelector{
		{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "mesh", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"off"}}}},
	}
	for _, l := range decide(t, f).Config.Allowance {
		for _, to := range append(l.To, l.From) {
			if to.Namespaces == nil {
				continue
			}
			s, err := selector(to.Namespaces)
			if err != nil {
				t.Fatal(err)
			}
			for _, ns := range []string{"kube-system", "isthmus-operator", "isthmus-system"} {
				if s.Matches(labels.Set{corev1.LabelMetadataName: ns}) {
					t.Errorf("%s covers %s", l.Why, ns)
				}
			}
		}
	}
}

func TestNamespaceGoesOnlyIfNobodyElseLivesThere(t *testing.T) {
	f := testFacts(v1alpha1.IngressOnly)
	f.Mesh.Spec.Uninstall.Namespace = v1alpha1.Delete
	f.Parts.Namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{v1alpha1.LabelTopology: "default"}}}
	if !f.takesNamespace() {
		t.Error("stays although it was made and is asked to go")
	}
	f.Others = []v1alpha1.MeshTopology{{Spec: v1alpha1.MeshTopologySpec{Namespace: "isthmus-system"}}}
	if f.takesNamespace() {
		t.Error("goes with another topology in it")
	}
}

func TestEachPodOfTheMeshRequestsCPU(t *testing.T) {
	cpu := func(q string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(q)}
	}
	memory := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	both := corev1.ResourceList{corev1.ResourceCPU: cpuRequest(), corev1.ResourceMemory: resource.MustParse("64Mi")}
	tests := map[string]struct{ in, want corev1.ResourceRequirements }{
		"nothing":              {want: corev1.ResourceRequirements{Requests: cpu("100m")}},
		"a request of memory":  {corev1.ResourceRequirements{Requests: memory}, corev1.ResourceRequirements{Requests: both}},
		"a request":            {corev1.ResourceRequirements{Requests: cpu("1")}, corev1.ResourceRequirements{Requests: cpu("1")}},
		"only a limit":         {corev1.ResourceRequirements{Limits: cpu("50m")}, corev1.ResourceRequirements{Limits: cpu("50m")}},
		"a limit of something": {corev1.ResourceRequirements{Limits: memory}, corev1.ResourceRequirements{Limits: memory, Requests: cpu("100m")}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := v1alpha1.Workload{Resources: tt.in}
			if diff := cmp.Diff(tt.want, testFacts(v1alpha1.IngressOnly).workload("a", w, nil).Workload.Resources); diff != "" {
				t.Error(diff)
			}
		})
	}
	if diff := cmp.Diff(cpu("100m"), corev1.ResourceList{corev1.ResourceCPU: *statusOf(testFacts(v1alpha1.IngressOnly)).Effective.CPURequest}); diff != "" {
		t.Errorf("status.effective: %s", diff)
	}
}

func TestSpecsThatOnlyHalfCouldBeCarriedOut(t *testing.T) {
	destination := func(name, protocol string, hosts ...string) v1alpha1.Destination {
		return v1alpha1.Destination{Name: name, Hosts: hosts, Ports: []v1alpha1.DestinationPort{{Number: 443, Protocol: protocol}}}
	}
	allow := func(cidr, except string) v1alpha1.EgressNetworkPolicy {
		return v1alpha1.EgressNetworkPolicy{Mode: v1alpha1.PolicyEnforce, Allow: []v1alpha1.Allow{{
			Name: "a", To: v1alpha1.AllowPeer{CIDR: cidr, Except: []string{except}},
		}}}
	}
	tests := map[string]struct {
		egress v1alpha1.Egress
		want   string
	}{
		"hosts and wildcards over TLS": {egress: v1alpha1.Egress{Destinations: []v1alpha1.Destination{destination("a", "TLS", "a.example.com", "*.example.org")}}},
		"hosts over TCP":               {egress: v1alpha1.Egress{Destinations: []v1alpha1.Destination{destination("a", "TCP", "a.example.com")}}},
		"a wildcard over TCP": {
			egress: v1alpha1.Egress{Destinations: []v1alpha1.Destination{destination("a", "TCP", "*.example.org")}},
			want:   "egress.destinations a: a wildcard needs a protocol that names the host, TCP does not: use TLS, HTTPS or HTTP",
		},
		"two destinations that become one ServiceEntry": {
			egress: v1alpha1.Egress{Destinations: []v1alpha1.Destination{destination("a-wildcard", "TLS", "a.example.com"), destination("a", "TLS", "*.example.org")}},
			want:   "egress.destinations: the wildcards of a and the destination a-wildcard would become one ServiceEntry: rename one",
		},
		"an exception inside its range": {egress: v1alpha1.Egress{NetworkPolicy: allow("10.0.0.0/8", "10.1.0.0/16")}},
		"an exception outside its range": {
			egress: v1alpha1.Egress{NetworkPolicy: allow("10.0.0.0/8", "192.168.0.0/16")},
			want:   "egress.networkPolicy.allow a: except 192.168.0.0/16 does not lie inside 10.0.0.0/8",
		},
		"an exception as large as its range": {
			egress: v1alpha1.Egress{NetworkPolicy: allow("10.0.0.0/8", "10.0.0.0/8")},
			want:   "egress.networkPolicy.allow a: except 10.0.0.0/8 does not lie inside 10.0.0.0/8",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := testFacts(v1alpha1.SidecarEgress)
			f.Mesh.Spec.Egress = tt.egress
			c := decide(t, f).Accepted
			if tt.want == "" && c.Status != metav1.ConditionTrue || tt.want != "" && (c.Status != metav1.ConditionFalse || c.Message != tt.want) {
				t.Errorf("%s: %s", c.Status, c.Message)
			}
		})
	}
}

func TestPatches(t *testing.T) {
	patch := func(part, spec string) v1alpha1.Patch {
		return v1alpha1.Patch{Name: "a", Target: v1alpha1.PatchTarget{Kind: "Deployment", Part: part},
			Merge: v1alpha1.PatchBody{Spec: &runtime.RawExtension{Raw: []byte(spec)}}}
	}
	const good, bad = `{"progressDeadlineSeconds":7}`, `{"replicas":7}`
	tests := map[string]struct {
		kind   v1alpha1.TopologyKind
		patch  v1alpha1.Patch
		object string // that is patched
		want   string // of the refusal
	}{
		"isthmusd":                             {v1alpha1.IngressOnly, patch("isthmusd", good), "isthmusd-default-0-1-0", ""},
		"an ingress gateway":                   {v1alpha1.IngressOnly, patch("ingress", good), "ingress-default", ""},
		"the egress gateway":                   {v1alpha1.EgressGateway, patch("egress", good), "egress-default", ""},
		"an egress gateway that is not there":  {v1alpha1.IngressOnly, patch("egress", good), "", ""},
		"what cannot be patched":               {v1alpha1.IngressOnly, patch("isthmusd", bad), "", "patches a: spec.replicas cannot be patched: set workload.replicas"},
		"what cannot be patched and not there": {v1alpha1.IngressOnly, patch("egress", bad), "", "patches a: spec.replicas cannot be patched: set workload.replicas"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := testFacts(tt.kind)
			f.Mesh.Spec.Patches = []v1alpha1.Patch{tt.patch}
			p := decide(t, f)
			if tt.want != "" {
				if p.Accepted.Status != metav1.ConditionFalse || p.Accepted.Message != tt.want || len(p.Objects)+len(p.Ground) > 0 || p.State != f.State {
					t.Errorf("not refused as a whole: %+v", p)
				}
				return
			}
			for _, o := range p.Objects {
				if o.GetKind() != "Deployment" {
					continue
				}
				got, _, _ := unstructured.NestedInt64(o.Object, "spec", "progressDeadlineSeconds")
				if patched := got == 7; patched != (o.GetName() == tt.object) {
					t.Errorf("%s: %d", o.GetName(), got)
				}
			}
		})
	}
}

func TestWallsComeBeforeWhatASpecCanSpoil(t *testing.T) {
	p := decide(t, testFacts(v1alpha1.EgressGateway))
	last := 0
	for i, o := range p.Objects {
		if o.GetKind() == "NetworkPolicy" {
			last = i
		}
	}
	first := slices.IndexFunc(p.Objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == "Deployment" })
	if last == 0 || last > first {
		t.Errorf("the last policy is object %d, the first Deployment %d", last, first)
	}
}

func TestNoWallWithoutAWayToDNS(t *testing.T) {
	f := testFacts(v1alpha1.EgressGateway)
	f.Cluster.DNS = allowance.Service{}
	if p := decide(t, f); p.Accepted.Status != metav1.ConditionFalse || len(p.Objects) > 0 {
		t.Errorf("walls that stand lose it: %+v", p.Accepted)
	}
	f.State = transition.State{Active: v1alpha1.IngressOnly, Target: v1alpha1.EgressGateway, Phase: v1alpha1.PhasePreparing}
	p := decide(t, f)
	if p.State.Phase != v1alpha1.PhasePreparing || !strings.Contains(transitionMessage(f, p), "DNS") {
		t.Errorf("%s: %s", p.State.Phase, transitionMessage(f, p))
	}
	f.Cluster.DNS.Addresses = []string{"10.96.0.10"}
	if p := decide(t, f); p.State.Phase != v1alpha1.PhaseRouting {
		t.Errorf("with DNS: %s", p.State.Phase)
	}
}
