// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgo "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	"github.com/isthmus-mesh/isthmus/internal/operator/guard"
	"github.com/isthmus-mesh/isthmus/internal/operator/guard/guardtest"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// guarded is a member of a suspended mesh, with the guard over it and nothing else:
// nobody would answer a webhook here.
type guarded struct {
	*world
	t         *testing.T
	namespace string
	config    topology.Config
	// operator acts as who may write what the guard protects.
	operator client.Client
}

const operatorUser = "system:serviceaccount:" + operatorNamespace + ":" + operatorAccount

// as is a client that may do everything, under another name.
func as(t *testing.T, user string) client.Client {
	t.Helper()
	config := rest.CopyConfig(shared.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}}
	c, err := client.New(config, client.Options{Scheme: shared.admin.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newGuarded applies the guard and waits until it is in force. The namespace is
// still closed.
func newGuarded(t *testing.T, name string, spec v1alpha1.Guard) *guarded {
	t.Helper()
	g := &guarded{world: shared, t: t, namespace: "member-" + name, config: topology.Config{
		Name: name, Namespace: "mesh-" + name, Revision: name + "-0-1-0",
		Injection: topology.Injection{Image: "isthmus/isthmus-proxy:0.1.0"},
		Bypass:    []topology.Bypass{{Name: "db", CIDR: "10.20.0.0/16", Ports: []int{5432, 5433}}, {Name: "net", CIDR: "192.0.2.0/24"}},
	}}
	g.operator = as(t, operatorUser)
	mt := &v1alpha1.MeshTopology{ObjectMeta: metav1.ObjectMeta{Name: name}}
	mt.Spec = v1alpha1.MeshTopologySpec{Topology: v1alpha1.IngressOnly, Namespace: g.config.Namespace, Suspend: true, Ingress: v1alpha1.Ingress{Gateways: []v1alpha1.IngressGateway{}}}
	if err := g.admin.Create(t.Context(), mt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.admin.Delete(context.Background(), mt) })
	member := metav1.LabelSelector{MatchLabels: map[string]string{"istio.io/rev": name}}
	facts, err := guard.New(guard.Facts{
		Topology: name, Revision: g.config.Revision, Namespace: g.config.Namespace, Operator: operatorUser,
		Members: []metav1.LabelSelector{member}, Peers: []metav1.LabelSelector{member}, Spec: spec, Now: time.Now(),
	}, g.config)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range guard.Objects(facts) {
		u, err := apply.Unstructured(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.admin.Create(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.admin.Delete(context.Background(), u) })
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: g.namespace, Labels: map[string]string{"istio.io/rev": name}}}
	if err := g.admin.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.operator.Delete(context.Background(), ns) })
	return g
}

// open marks the namespace as the operator does once the wall stands.
func (g *guarded) open() {
	g.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: g.namespace}}
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, v1alpha1.LabelEnforced, g.config.Name)
	if err := g.operator.Patch(g.t.Context(), ns, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		g.t.Fatal(err)
	}
}

// refusal is what the API server says of the object; empty if it takes it.
func (g *guarded) refusal(o client.Object) string {
	o.SetNamespace(g.namespace)
	err := g.admin.Create(g.t.Context(), o.DeepCopyObject().(client.Object), client.DryRunAll)
	if err != nil {
		return err.Error()
	}
	return ""
}

// says waits until the API server refuses the object with these words.
func (g *guarded) says(o client.Object, want string) {
	g.t.Helper()
	eventually(g.t, want, func() error {
		if got := g.refusal(o); !strings.Contains(got, want) {
			return fmt.Errorf("says %q", got)
		}
		return nil
	})
}

func plainPod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	if change != nil {
		change(p)
	}
	return p
}

func TestGuardOverPods(t *testing.T) {
	g := newGuarded(t, "guard-pods", v1alpha1.Guard{Mode: v1alpha1.GuardEnforce, Exemptions: []v1alpha1.Exemption{{
		Name: "logs", Namespace: "member-guard-pods", ServiceAccount: "logs",
		Allow: []v1alpha1.GuardRule{v1alpha1.RuleHostPath}, Expires: metav1.NewTime(time.Now().Add(time.Hour)),
	}}})
	t.Run("nobody starts in a namespace whose wall does not stand", func(t *testing.T) {
		g.says(plainPod("early", nil), "ClosedStart: ")
	})
	t.Run("nobody else says that it stands", func(t *testing.T) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: g.namespace}}
		mark := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, v1alpha1.LabelEnforced, g.config.Name)
		eventually(t, "refusal", func() error {
			err := g.admin.Patch(t.Context(), ns.DeepCopy(), client.RawPatch("application/merge-patch+json", mark), client.DryRunAll)
			if err == nil || !strings.Contains(err.Error(), "Enforced: ") {
				return fmt.Errorf("says %w", err)
			}
			return nil
		})
		for _, sub := range []string{"status", "finalize"} {
			current := read(&mesh{world: g.world, t: t}, "", g.namespace, &corev1.Namespace{})
			current.Labels[v1alpha1.LabelEnforced] = g.config.Name
			if err := g.admin.SubResource(sub).Update(t.Context(), current); err == nil || !strings.Contains(err.Error(), "Enforced: ") {
				t.Errorf("by %s: %v", sub, err)
			}
		}
		born := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "born-open", Labels: map[string]string{v1alpha1.LabelEnforced: g.config.Name}}}
		if err := g.admin.Create(t.Context(), born, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "Enforced: ") {
			t.Errorf("by creation: %v", err)
		}
	})
	g.open()
	eventually(t, "the open namespace", func() error {
		if got := g.refusal(plainPod("first", nil)); got != "" {
			return fmt.Errorf("says %q", got)
		}
		return nil
	})
	cases, err := guardtest.Cases(g.config)
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 40 {
		t.Errorf("only %d cases", len(cases))
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			got := g.refusal(tt.Pod)
			switch {
			case tt.Want == "" && got != "":
				t.Errorf("refused: %s", got)
			case !strings.Contains(got, tt.Want):
				t.Errorf("want %q, got %q", tt.Want, got)
			}
		})
	}
	t.Run("an exemption is for one account and one rule", func(t *testing.T) {
		path := func(account string, more func(*corev1.Pod)) *corev1.Pod {
			return plainPod("exempt", func(p *corev1.Pod) {
				p.Spec.ServiceAccountName = account
				p.Spec.Volumes = []corev1.Volume{{Name: "run", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/run"}}}}
				if more != nil {
					more(p)
				}
			})
		}
		if got := g.refusal(path("logs", nil)); got != "" {
			t.Errorf("the exempt account is refused: %s", got)
		}
		if got := g.refusal(path("other", nil)); !strings.Contains(got, "HostPath: volume run") {
			t.Errorf("another account: %q", got)
		}
		if got := g.refusal(path("logs", func(p *corev1.Pod) { p.Spec.HostPID = true })); !strings.Contains(got, "HostPID: ") {
			t.Errorf("another rule: %q", got)
		}
	})
	g.running()
}

// running checks what can be done to pods that run.
func (g *guarded) running() {
	t := g.t
	cases, err := guardtest.Cases(g.config)
	if err != nil {
		t.Fatal(err)
	}
	pod := cases["an injected pod"].Pod
	pod.Namespace = g.namespace
	if err := g.admin.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	debug := func(change func(*corev1.EphemeralContainer)) error {
		p := read(&mesh{world: g.world, t: t}, g.namespace, pod.Name, &corev1.Pod{})
		c := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debug", Image: "debug", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		}}
		change(&c)
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{c}
		return g.admin.SubResource("ephemeralcontainers").Update(t.Context(), p, &client.SubResourceUpdateOptions{UpdateOptions: client.UpdateOptions{DryRun: []string{metav1.DryRunAll}}})
	}
	uid := func(id int64) *corev1.SecurityContext { return &corev1.SecurityContext{RunAsUser: &id} }
	yes := true
	for name, tt := range map[string]struct {
		change func(*corev1.EphemeralContainer)
		want   string
	}{
		"a debugger":              {change: func(*corev1.EphemeralContainer) {}},
		"a debugger of the app":   {change: func(c *corev1.EphemeralContainer) { c.TargetContainerName = "app" }},
		"a debugger of the proxy": {change: func(c *corev1.EphemeralContainer) { c.TargetContainerName = "istio-proxy" }, want: "DebugTarget: "},
		"a debugger with the proxy's user": {
			change: func(c *corev1.EphemeralContainer) { c.SecurityContext = uid(1337) }, want: "ProxyUser: container debug",
		},
		"a privileged debugger": {
			change: func(c *corev1.EphemeralContainer) { c.SecurityContext = &corev1.SecurityContext{Privileged: &yes} }, want: "Privileged: container debug",
		},
		"a debugger with capabilities": {
			change: func(c *corev1.EphemeralContainer) {
				c.SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_PTRACE"}}}
			}, want: "Capabilities: container debug",
		},
		"a debugger with the proxy's files": {
			change: func(c *corev1.EphemeralContainer) {
				c.VolumeMounts = []corev1.VolumeMount{{Name: "istio-envoy", MountPath: "/envoy"}}
			}, want: "ProxyVolumes: container debug",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := debug(tt.change)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("want %q, got %v", tt.want, err)
			}
		})
	}
	t.Run("a debugger that stands for a proxy", func(t *testing.T) {
		p := plainPod("bare", nil)
		p.Namespace = g.namespace
		if err := g.admin.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "istio-proxy", Image: "debug", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		}}}
		err := g.admin.SubResource("ephemeralcontainers").Update(t.Context(), p)
		if err == nil || !strings.Contains(err.Error(), "DebugTarget: ") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the proxy's image", func(t *testing.T) {
		p := read(&mesh{world: g.world, t: t}, g.namespace, pod.Name, &corev1.Pod{})
		p.Spec.InitContainers[1].Image = "mine"
		if err := g.admin.Update(t.Context(), p, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "ProxyImage: ") {
			t.Errorf("changed: %v", err)
		}
		p = read(&mesh{world: g.world, t: t}, g.namespace, pod.Name, &corev1.Pod{})
		p.Spec.Containers[0].Image = "app:2"
		p.Annotations["traffic.sidecar.istio.io/excludeOutboundPorts"] = "too late to have an effect"
		if err := g.admin.Update(t.Context(), p, client.DryRunAll); err != nil {
			t.Errorf("the application's image cannot be changed: %v", err)
		}
	})
	g.exec(pod.Name)
}

// exec checks who is let into a container. Past the guard there is no kubelet to go to.
func (g *guarded) exec(pod string) {
	c, err := clientgo.NewForConfig(shared.config)
	if err != nil {
		g.t.Fatal(err)
	}
	call := func(sub, container string) string {
		r := c.CoreV1().RESTClient().Post().Namespace(g.namespace).Resource("pods").Name(pod).SubResource(sub).Param("stdout", "true")
		if sub == "exec" {
			r = r.Param("command", "sh")
		}
		if container != "" {
			r = r.Param("container", container)
		}
		if err := r.Do(g.t.Context()).Error(); err != nil {
			return err.Error()
		}
		return ""
	}
	for name, tt := range map[string]struct{ sub, container, want string }{
		"exec into the proxy":            {"exec", "istio-proxy", "Exec: a process in the proxy's container"},
		"exec into the proxy's init":     {"exec", "istio-init", "Exec: a process in the proxy's container"},
		"exec into nobody in particular": {"exec", "", "Exec: name a container"},
		"attach to the proxy":            {"attach", "istio-proxy", "Exec: a process in the proxy's container"},
		"exec into the application":      {"exec", "app", "does not have a host assigned"},
		"attach to the application":      {"attach", "app", "does not have a host assigned"},
	} {
		g.t.Run(name, func(t *testing.T) {
			eventually(t, "answer", func() error {
				if got := call(tt.sub, tt.container); !strings.Contains(got, tt.want) {
					return fmt.Errorf("want %q, got %q", tt.want, got)
				}
				return nil
			})
		})
	}
}

// warnings collects what the API server warns of.
type warnings struct {
	mu   sync.Mutex
	seen []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, text)
}

func (w *warnings) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := strings.Join(w.seen, "\n")
	w.seen = nil
	return out
}

// warned is a client whose warnings are kept.
func warned(t *testing.T) (client.Client, *warnings) {
	t.Helper()
	w := &warnings{}
	config := rest.CopyConfig(shared.config)
	config.WarningHandler = w
	c, err := client.New(config, client.Options{Scheme: shared.admin.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c, w
}

func TestGuardWarnsOfTemplates(t *testing.T) {
	g := newGuarded(t, "guard-templates", v1alpha1.Guard{Mode: v1alpha1.GuardEnforce})
	c, w := warned(t)
	bad := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a"}},
		Spec:       corev1.PodSpec{HostPID: true, Containers: []corev1.Container{{Name: "app", Image: "app"}}, RestartPolicy: corev1.RestartPolicyAlways},
	}
	once := *bad.DeepCopy()
	once.Spec.RestartPolicy = corev1.RestartPolicyNever
	good := *bad.DeepCopy()
	good.Spec.HostPID = false
	app := &metav1.LabelSelector{MatchLabels: bad.Labels}
	meta := metav1.ObjectMeta{Namespace: g.namespace, Name: "a"}
	owned := *meta.DeepCopy()
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "a", UID: "u"}}
	const warning = "HostPID: spec.hostPID: pods of this template will be refused"
	for name, tt := range map[string]struct {
		object client.Object
		want   string
	}{
		"a Deployment":                  {&appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: app, Template: bad}}, warning},
		"a StatefulSet":                 {&appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Selector: app, Template: bad}}, warning},
		"a DaemonSet":                   {&appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: app, Template: bad}}, warning},
		"a ReplicaSet":                  {&appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: app, Template: bad}}, warning},
		"a ReplicaSet of a Deployment":  {&appsv1.ReplicaSet{ObjectMeta: owned, Spec: appsv1.ReplicaSetSpec{Selector: app, Template: bad}}, ""},
		"a ReplicationController":       {&corev1.ReplicationController{ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Selector: bad.Labels, Template: &bad}}, warning},
		"a Job":                         {&batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{Template: once}}, warning},
		"a CronJob":                     {&batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{Schedule: "0 0 * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: once}}}}, warning},
		"a Deployment that is in order": {&appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: app, Template: good}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			eventually(t, "warning", func() error {
				err := c.Create(t.Context(), tt.object.DeepCopyObject().(client.Object), client.DryRunAll)
				got := w.take()
				if err != nil || tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
					return fmt.Errorf("warned %q, error %s", got, fmt.Sprint(err))
				}
				return nil
			})
		})
	}
}

func TestGuardThatOnlyWarns(t *testing.T) {
	g := newGuarded(t, "guard-warn", v1alpha1.Guard{Mode: v1alpha1.GuardWarn})
	c, w := warned(t)
	eventually(t, "warning", func() error {
		p := plainPod("host", func(p *corev1.Pod) { p.Spec.HostNetwork = true })
		p.Namespace = g.namespace
		err := c.Create(t.Context(), p, client.DryRunAll)
		if got := w.take(); err != nil || !strings.Contains(got, "HostNetwork: spec.hostNetwork") {
			return fmt.Errorf("warned %q, error %s", got, fmt.Sprint(err))
		}
		return nil
	})
}

func TestGuardOverNetworkPolicies(t *testing.T) {
	g := newGuarded(t, "guard-policies", v1alpha1.Guard{Mode: v1alpha1.GuardOff})
	ours := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: g.namespace, Name: "isthmus-egress", Labels: map[string]string{v1alpha1.LabelTopology: g.config.Name}},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}},
	}
	open := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: g.namespace, Name: "theirs"},
		Spec:       networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{}}},
	}
	g.says(open, "Rule: ")
	rows, err := guardtest.NetworkPolicies("istio.io/rev", g.config.Name, g.namespace)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range rows {
		t.Run(name, func(t *testing.T) {
			got := g.refusal(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: g.namespace, Name: "theirs"}, Spec: tt.Spec})
			if tt.Want == "" && got != "" || !strings.Contains(got, tt.Want) {
				t.Errorf("want %q, got %q", tt.Want, got)
			}
		})
	}
	t.Run("the operator's are the operator's", func(t *testing.T) {
		if got := g.refusal(ours); !strings.Contains(got, "Policy: ") {
			t.Errorf("made by somebody: %q", got)
		}
		if err := g.operator.Create(t.Context(), ours); err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"opened":                  g.admin.Patch(t.Context(), ours.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"egress":[{}]}}`))),
			"unmarked":                g.admin.Patch(t.Context(), ours.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":null}}`))),
			"deleted":                 g.admin.Delete(t.Context(), ours.DeepCopy()),
			"deleted with all others": g.admin.DeleteAllOf(t.Context(), &networkingv1.NetworkPolicy{}, client.InNamespace(g.namespace)),
		} {
			if err == nil || !strings.Contains(err.Error(), "Policy: ") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := g.operator.Delete(t.Context(), ours); err != nil {
			t.Errorf("the operator cannot delete its own: %v", err)
		}
	})
	t.Run("the namespace's end", func(t *testing.T) {
		again := ours.DeepCopy()
		again.ResourceVersion = ""
		if err := g.operator.Create(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		c := as(t, "system:serviceaccount:kube-system:namespace-controller")
		if err := c.DeleteAllOf(t.Context(), &networkingv1.NetworkPolicy{}, client.InNamespace(g.namespace)); err != nil {
			t.Errorf("the namespace cannot end: %v", err)
		}
	})
}
