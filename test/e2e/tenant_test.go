// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"regexp"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/test/journey"
	"github.com/isthmus-mesh/isthmus/test/kube"
)

// tenancy is the namespace of a tenant, who has Kubernetes' own role "edit" there,
// may debug pods, and nothing else.
const tenancy = "tenant"

// tenantManifest is what the platform's owners make for a tenant.
const tenantManifest = `apiVersion: v1
kind: Namespace
metadata: {name: tenant, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: tenant, namespace: tenant}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: tenant}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: tenant, namespace: tenant}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: debug, namespace: tenant}
rules: [{apiGroups: [""], resources: [pods/ephemeralcontainers], verbs: [patch, update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: debug, namespace: tenant}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: debug}
subjects: [{kind: ServiceAccount, name: tenant, namespace: tenant}]
`

// ownManifest is what the tenant has a right to, and makes first.
const ownManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: tenant}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: app, image: "isthmus/testapp:0.1.0", imagePullPolicy: IfNotPresent, args: [pause]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: own, namespace: tenant}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}
`

//go:embed tenant.yaml
var tenantPods string

// refusedFor wants a refusal at admission that begins so, and says what to do.
func refusedFor(t *testing.T, err error, want string) {
	t.Helper()
	denied := regexp.MustCompile(`denied (the )?request: ` + regexp.QuoteMeta(want))
	switch {
	case err == nil, !denied.MatchString(err.Error()):
		t.Errorf("want %q, got: %v", want, err)
	case !advice.MatchString(err.Error()):
		t.Errorf("does not say what to do: %v", err)
	}
}

// answered asks again while a webhook does not answer in time, as on a busy machine.
func answered(t *testing.T, try func(context.Context) error) error {
	t.Helper()
	var answer error
	err := wait.PollUntilContextTimeout(t.Context(), time.Second, settle, true, func(ctx context.Context) (bool, error) {
		answer = try(ctx)
		return !apierrors.IsInternalError(answer), nil
	})
	if err != nil {
		t.Fatalf("nobody answers: %v", answer)
	}
	return answer
}

var dryRun = []string{metav1.DryRunAll}

// tenant tries to get past the guard, with all that Kubernetes lets a tenant do.
func tenant(t *testing.T) {
	t.Cleanup(func() { removeNamespace(t, tenancy) })
	if err := env.Kube.Apply(t.Context(), tenantManifest); err != nil {
		t.Fatal(err)
	}
	k := tenantClient(t)
	if err := k.Apply(t.Context(), ownManifest); err != nil {
		t.Fatal(err)
	}
	if err := k.PodsReady(t.Context(), tenancy, settle); err != nil {
		t.Fatal(err)
	}
	app, err := k.Pod(t.Context(), tenancy, "app=app")
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func(*testing.T){
		"pods":                   func(t *testing.T) { tenantMakesPods(t, k) },
		"network policies":       func(t *testing.T) { tenantOpensPolicies(t, k) },
		"a running pod":          func(t *testing.T) { tenantChangesPod(t, k, app) },
		"ephemeral containers":   func(t *testing.T) { tenantDebugs(t, k, app) },
		"exec and attach":        func(t *testing.T) { tenantEntersProxy(t, k, app) },
		"workloads":              func(t *testing.T) { tenantMakesWorkloads(t, k) },
		"an exempt account":      exemptions,
		"what the mesh is made":  func(t *testing.T) { tenantReachesForMesh(t, k) },
		"the mesh as it is used": func(t *testing.T) { tenantUsesMesh(t, k) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			try(t)
		})
	}
}

// tenantClient has the tenant's token and waits until the token counts.
func tenantClient(t *testing.T) *kube.Client {
	t.Helper()
	token, err := env.Kube.Typed.CoreV1().ServiceAccounts(tenancy).CreateToken(t.Context(), tenancy, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	k, err := env.Kube.With(token.Status.Token)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// tenantMakesPods creates the table's pods. Those that are let in have a proxy.
func tenantMakesPods(t *testing.T, k *kube.Client) {
	var rows map[string]struct {
		Pod  map[string]any `json:"pod"`
		Want string         `json:"want"`
	}
	if err := yaml.UnmarshalStrict([]byte(tenantPods), &rows); err != nil {
		t.Fatal(err)
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got *corev1.Pod
			err := answered(t, func(ctx context.Context) (err error) {
				got, err = k.Typed.CoreV1().Pods(tenancy).Create(ctx, attempt(t, row.Pod), metav1.CreateOptions{DryRun: dryRun})
				return err //nolint:wrapcheck // a table's row
			})
			switch {
			case row.Want != "":
				refusedFor(t, err, row.Want)
			case err != nil:
				t.Error(err)
			case !hasProxy(got):
				t.Error("it was let in without a proxy")
			}
		})
	}
}

// exemptions lets an account of the cast do what the topology exempts it from, and
// nothing else (journey.Scene.Topology).
func exemptions(t *testing.T) {
	for name, row := range map[string]struct {
		pod  map[string]any
		want string
	}{
		"excluded ranges": {pod: annotated("traffic.sidecar.istio.io/excludeOutboundIPRanges", "192.0.2.0/24")},
		"excluded ports":  {pod: annotated("traffic.sidecar.istio.io/excludeOutboundPorts", "25")},
		"another proxy":   {pod: annotated("sidecar.istio.io/proxyImage", "mine")},
		"a path of the node": {map[string]any{"spec": map[string]any{"volumes": []any{map[string]any{
			"name": "run", "hostPath": map[string]any{"path": "/run"},
		}}}}, "HostPath: volume run"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := answered(t, func(ctx context.Context) error {
				_, err := env.Kube.Typed.CoreV1().Pods(journey.Shop).Create(ctx, attempt(t, row.pod), metav1.CreateOptions{DryRun: dryRun})
				return err //nolint:wrapcheck // a table's row
			})
			if row.want != "" {
				refusedFor(t, err, row.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func annotated(key, value string) map[string]any {
	return map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}}
}

// attempt is a pod with one container, and what is laid over it.
func attempt(t *testing.T, over map[string]any) *corev1.Pod {
	t.Helper()
	pod := corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}}}
	pod.Name = "attempt"
	before, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := json.Marshal(over)
	if err != nil {
		t.Fatal(err)
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, pod)
	if err != nil {
		t.Fatal(err)
	}
	var out corev1.Pod
	if err := json.Unmarshal(after, &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

func hasProxy(p *corev1.Pod) bool {
	for _, c := range p.Spec.InitContainers {
		if c.Name == "istio-proxy" {
			return true
		}
	}
	return false
}

// tenantOpensPolicies tries to open the wall: by policies of the tenant's own,
// which add up with the operator's, and by changing those.
func tenantOpensPolicies(t *testing.T, k *kube.Client) {
	policies := k.Typed.NetworkingV1().NetworkPolicies(tenancy)
	own := "own"
	list, err := policies.List(t.Context(), metav1.ListOptions{LabelSelector: "isthmus.dev/topology"})
	if err != nil || len(list.Items) == 0 {
		t.Fatalf("want the operator's policies in the namespace, got %d, %v", len(list.Items), err)
	}
	theirs := list.Items[0].Name
	patch := func(name, patch string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := policies.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: dryRun})
			return err //nolint:wrapcheck // a table's row
		}
	}
	for name, row := range map[string]struct {
		try  func(context.Context) error
		want string
	}{
		"their own, closed further":        {try: patch(own, `{"spec":{"egress":[]}}`)},
		"their own, opened":                {patch(own, `{"spec":{"egress":[{}]}}`), `Rule: a rule without "to"`},
		"their own, to every address":      {patch(own, `{"spec":{"egress":[{"to":[{"ipBlock":{"cidr":"0.0.0.0/0"}}]}]}}`), "Peer: ipBlock 0.0.0.0/0"},
		"their own, to every namespace":    {patch(own, `{"spec":{"egress":[{"to":[{"namespaceSelector":{}}]}]}}`), "Peer: a namespaceSelector"},
		"their own, taken for operator's":  {patch(own, `{"metadata":{"labels":{"isthmus.dev/topology":"default"}}}`), "Policy: "},
		"the operator's, opened":           {patch(theirs, `{"spec":{"egress":[{}]}}`), "Policy: "},
		"the operator's, for nobody":       {patch(theirs, `{"spec":{"podSelector":{"matchLabels":{"nobody":""}}}}`), "Policy: "},
		"the operator's, without its mark": {patch(theirs, `{"metadata":{"labels":null}}`), "Policy: "},
		"the operator's, without its owner": {
			patch(theirs, `{"metadata":{"ownerReferences":null}}`), "Policy: ",
		},
		"the operator's, deleted": {func(ctx context.Context) error {
			return policies.Delete(ctx, theirs, metav1.DeleteOptions{DryRun: dryRun})
		}, "Policy: "},
		"all, deleted": {func(ctx context.Context) error {
			return policies.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: dryRun}, metav1.ListOptions{LabelSelector: "isthmus.dev/topology"})
		}, "Policy: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := row.try(t.Context())
			if row.want != "" {
				refusedFor(t, err, row.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// tenantChangesPod tries to make another of what was let in.
func tenantChangesPod(t *testing.T, k *kube.Client, app *corev1.Pod) {
	for name, row := range map[string]struct{ patch, want string }{
		"the application's image": {patch: `{"spec":{"containers":[{"name":"app","image":"another"}]}}`},
		"the proxy's image":       {`{"spec":{"initContainers":[{"name":"istio-proxy","image":"mine"}]}}`, "ProxyImage: "},
		"the init's image":        {`{"spec":{"initContainers":[{"name":"istio-init","image":"mine"}]}}`, "ProxyImage: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := k.Typed.CoreV1().Pods(tenancy).Patch(t.Context(), app.Name, types.StrategicMergePatchType, []byte(row.patch), metav1.PatchOptions{DryRun: dryRun})
			if row.want != "" {
				refusedFor(t, err, row.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// tenantDebugs adds ephemeral containers, as kubectl debug does.
func tenantDebugs(t *testing.T, k *kube.Client, app *corev1.Pod) {
	for name, row := range map[string]struct{ container, want string }{
		"beside the application":            {container: `{"name":"debug","image":"tools"}`},
		"in the application's processes":    {container: `{"name":"debug","image":"tools","targetContainerName":"app"}`},
		"in the proxy's processes":          {`{"name":"debug","image":"tools","targetContainerName":"istio-proxy"}`, "DebugTarget: "},
		"as the proxy's user":               {`{"name":"debug","image":"tools","securityContext":{"runAsUser":1337}}`, "ProxyUser: container debug"},
		"as the proxy's group":              {`{"name":"debug","image":"tools","securityContext":{"runAsGroup":1337}}`, "ProxyUser: container debug"},
		"privileged":                        {`{"name":"debug","image":"tools","securityContext":{"privileged":true}}`, "Privileged: container debug"},
		"with NET_ADMIN":                    {`{"name":"debug","image":"tools","securityContext":{"capabilities":{"add":["NET_ADMIN"]}}}`, "Capabilities: container debug"},
		"with NET_RAW":                      {`{"name":"debug","image":"tools","securityContext":{"capabilities":{"add":["NET_RAW"]}}}`, "Capabilities: container debug"},
		"with the proxy's token":            {`{"name":"debug","image":"tools","volumeMounts":[{"name":"istio-token","mountPath":"/t"}]}`, "ProxyVolumes: container debug"},
		"that calls itself by another name": {`{"name":"istio-proxy-debug","image":"tools","securityContext":{"runAsUser":1337}}`, "ProxyUser: container istio-proxy-debug"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			patch := `{"spec":{"ephemeralContainers":[` + row.container + `]}}`
			_, err := k.Typed.CoreV1().Pods(tenancy).Patch(t.Context(), app.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{DryRun: dryRun}, "ephemeralcontainers")
			if row.want != "" {
				refusedFor(t, err, row.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// tenantEntersProxy asks for a process in the proxy's container.
func tenantEntersProxy(t *testing.T, k *kube.Client, app *corev1.Pod) {
	t.Run("the application's", func(t *testing.T) {
		t.Parallel()
		if _, err := k.Run(t.Context(), tenancy, app.Name, "app", "/usr/local/bin/testapp", "--help"); err != nil {
			t.Error(err)
		}
	})
	for _, verb := range []string{"exec", "attach"} {
		for _, container := range []string{"istio-proxy", "istio-init", ""} {
			t.Run(verb+" "+container, func(t *testing.T) {
				t.Parallel()
				err := k.Typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(tenancy).Name(app.Name).SubResource(verb).
					VersionedParams(&corev1.PodExecOptions{Container: container, Command: []string{"id"}, Stdout: true}, scheme.ParameterCodec).
					Do(t.Context()).Error()
				refusedFor(t, err, "Exec: ")
			})
		}
	}
}

//go:embed istio.yaml
var istioManifest string

// tenantUsesMesh writes an object of each of Istio's kinds, and reads what the mesh
// says of the namespace: the role gives that, by what the operator adds to it.
func tenantUsesMesh(t *testing.T, k *kube.Client) {
	objects, err := kube.Parse(istioManifest)
	if err != nil {
		t.Fatal(err)
	}
	role, err := env.Kube.Typed.RbacV1().ClusterRoles().Get(t.Context(), "isthmus-edit", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	given := 0
	for _, r := range role.Rules {
		given += len(r.Resources)
	}
	if given != len(objects) {
		t.Errorf("istio.yaml has objects of %d kinds, the role gives %d: %v", len(objects), given, role.Rules)
	}
	for _, o := range objects {
		t.Run(o.GetKind(), func(t *testing.T) {
			t.Parallel()
			ri, err := k.Resource(t.Context(), o.GroupVersionKind(), tenancy)
			if err != nil {
				t.Fatal(err)
			}
			if err := answered(t, func(ctx context.Context) error {
				_, err := ri.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: tenancy, DryRun: dryRun})
				return err //nolint:wrapcheck // a table's row
			}); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("MeshMember", func(t *testing.T) {
		t.Parallel()
		ri, err := k.Resource(t.Context(), journey.TopologyKind.GroupVersion().WithKind("MeshMember"), tenancy)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ri.Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// tenantReachesForMesh tries what the role does not give: these are refused by RBAC.
func tenantReachesForMesh(t *testing.T, k *kube.Client) {
	patch := func(apiVersion, kind, namespace, name, patch string) func(context.Context) error {
		return func(ctx context.Context) error {
			ri, err := k.Resource(ctx, schema.FromAPIVersionAndKind(apiVersion, kind), namespace)
			if err == nil {
				_, err = ri.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: dryRun})
			}
			return err //nolint:wrapcheck // a table's row
		}
	}
	mine := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"topology": "IngressOnly"}}}
	mine.SetGroupVersionKind(journey.TopologyKind)
	mine.SetName("mine")
	for name, try := range map[string]func(context.Context) error{
		"the MeshTopology":       patch("isthmus.dev/v1alpha1", "MeshTopology", "", "default", `{"spec":{"topology":"IngressOnly"}}`),
		"the MeshMember":         patch("isthmus.dev/v1alpha1", "MeshMember", tenancy, "default", `{"metadata":{"labels":{"a":"b"}}}`),
		"the namespace's labels": patch("v1", "Namespace", "", tenancy, `{"metadata":{"labels":{"istio-injection":null}}}`),
		"a binding of the guard": patch("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "", "isthmus-guard.0-default", `{"spec":{"validationActions":["Warn"]}}`),
		"the injector's webhook": patch("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "", "isthmus-injector-default", `{"webhooks":[]}`),
		"the mesh's own key":     patch("v1", "Secret", env.Namespace, "isthmus-ca-default", `{"data":{"a":""}}`),
		"a greater role": func(ctx context.Context) error {
			_, err := k.Typed.RbacV1().RoleBindings(tenancy).Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "more"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "cluster-admin"},
				Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: tenancy, Namespace: tenancy}},
			}, metav1.CreateOptions{DryRun: dryRun})
			return err //nolint:wrapcheck // a table's row
		},
		"a MeshTopology of their own": func(ctx context.Context) error {
			ri, err := k.Resource(ctx, journey.TopologyKind, "")
			if err == nil {
				_, err = ri.Apply(ctx, "mine", mine, metav1.ApplyOptions{FieldManager: tenancy, DryRun: dryRun})
			}
			return err //nolint:wrapcheck // a table's row
		},
		"Istio's objects where others live": patch("networking.istio.io/v1", "VirtualService", journey.Shop, "theirs", `{}`),
		"a pod where others live": func(ctx context.Context) error {
			_, err := k.Typed.CoreV1().Pods(journey.Shop).Create(ctx, attempt(t, nil), metav1.CreateOptions{DryRun: dryRun})
			return err //nolint:wrapcheck // a table's row
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := try(t.Context()); !apierrors.IsForbidden(err) {
				t.Errorf("want it forbidden, got: %v", err)
			}
		})
	}
}
