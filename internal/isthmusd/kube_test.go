// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	api "istio.io/api/networking/v1alpha3"
	istioca "istio.io/api/security/v1alpha1"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	istio "istio.io/client-go/pkg/clientset/versioned"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
	"github.com/isthmus-mesh/isthmus/internal/pki"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// cluster is a real API server, and a control plane that serves from it.
type cluster struct {
	env   *envtest.Environment
	rest  *rest.Config
	core  kubernetes.Interface
	istio istio.Interface
	d     *Daemon
	// ahead is how far the control plane's clock is ahead.
	ahead atomic.Int64
	said  words
}

// startCluster needs the programs that KUBEBUILDER_ASSETS names.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set")
	}
	c := &cluster{env: &envtest.Environment{}}
	var err error
	if c.rest, err = c.env.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.env.Stop(); err != nil {
			t.Error(err)
		}
	})
	c.core, c.istio = kubernetes.NewForConfigOrDie(c.rest), istio.NewForConfigOrDie(c.rest)
	return c
}

// serve runs the control plane; it waits for what is missing.
func (c *cluster) serve(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	config := rest.CopyConfig(c.rest)
	config.QPS, config.Burst = 100, 200
	d, err := New(ctx, Config{
		Kubernetes: config, Log: slog.New(slog.NewTextHandler(&c.said, nil)),
		Addresses: Addresses{HTTP: "127.0.0.1:0", SecureGRPC: "127.0.0.1:0", Distribution: "127.0.0.1:0"},
		Operator:  "system:serviceaccount:default:operator",
		Now:       func() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) },
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	c.d = d
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (c *cluster) create(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("create %s: %v", what, err)
	}
}

// until waits for a commit after which the condition holds.
func (c *cluster) until(t *testing.T, what string, holds func(*snapshot.View) bool) {
	t.Helper()
	notify := make(chan struct{}, 1)
	defer c.d.catalog.Watch(notify)()
	deadline := time.After(30 * time.Second)
	for !c.d.catalog.Ready() || !holds(c.d.store.Current().View(nil, nil)) {
		select {
		case <-notify:
		case <-deadline:
			t.Fatalf("%s: not within 30 s; waiting %v, problems %v", what, c.d.ingest.Queue().Waiting(), c.d.ingest.Queue().Problems())
		}
	}
}

func (c *cluster) installCRDs(t *testing.T) {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "istio.io/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(strings.TrimSpace(string(out)), "kubernetes", "customresourcedefinitions.gen.yaml")
	if _, err := envtest.InstallCRDs(c.rest, envtest.CRDInstallOptions{Paths: []string{path}}); err != nil {
		t.Fatal(err)
	}
}

func TestAnAPIServerIsServed(t *testing.T) {
	t.Parallel()
	c, ctx := startCluster(t), t.Context()
	var o metav1.CreateOptions
	const ns = "isthmus-system"
	_, err := c.core.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, o)
	c.create(t, "namespace", err)
	root, err := pki.NewRoot(pki.RootOptions{Organization: "cluster.local", Validity: pki.Validity{Now: time.Now()}})
	c.create(t, "root", err)
	data, err := root.Data()
	c.create(t, "root's data", err)
	_, err = c.core.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "isthmus-ca-default"}, Data: data}, o)
	c.create(t, "CA", err)
	c.serve(t)

	if code, body := get(t, c.d, "/ready"); code != 503 || !strings.Contains(body, "watch of ConfigMap") {
		t.Errorf("without the topology: %d %s", code, body)
	}
	_, err = c.core.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "isthmus-default"},
		Data:       map[string]string{"topology": "{name: default, namespace: isthmus-system, topology: SidecarEgress, outbound: RegistryOnly, epoch: e1}"},
	}, o)
	c.create(t, "topology", err)
	c.until(t, "ready without Istio's kinds", func(v *snapshot.View) bool { return v.Config().Epoch == "e1" })

	_, err = c.core.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}, o)
	c.create(t, "service", err)
	c.until(t, "a new service", func(v *snapshot.View) bool {
		return len(v.ServicesByHost("web.default.svc.cluster.local")) == 1
	})

	c.installCRDs(t)
	vs := &networking.VirtualService{
		ObjectMeta: metav1.ObjectMeta{Name: "v"},
		Spec:       api.VirtualService{Hosts: []string{"web"}},
	}
	_, err = c.istio.NetworkingV1().VirtualServices("default").Create(ctx, vs, o)
	c.create(t, "virtual service", err)
	c.until(t, "a kind that came later", func(v *snapshot.View) bool {
		return len(v.VirtualServicesByHost("web.default.svc.cluster.local")) == 1
	})
	if err := c.istio.NetworkingV1().VirtualServices("default").Delete(ctx, "v", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.until(t, "a deletion", func(v *snapshot.View) bool { return len(v.VirtualServices()) == 0 })
	c.issue(t, root)
	c.forgetAccount(t, root)
	c.distributed(t, root)
	c.replaceRoot(t, ns, root)
	c.stall(t)
}

// stall lets the clock pass while the watches hear nothing. What one of them hears
// meanwhile makes up for itself alone.
func (c *cluster) stall(t *testing.T) {
	t.Helper()
	if code, body := get(t, c.d, "/ready"); code != 200 {
		t.Errorf("before: %d %s", code, body)
	}
	c.ahead.Store(int64(91 * time.Second))
	if code, body := get(t, c.d, "/ready"); code != 503 || !strings.Contains(body, "no progress in watch of ") {
		t.Errorf("91 seconds later: %d %s", code, body)
	}
	c.ahead.Store(0)
	if code, body := get(t, c.d, "/ready"); code != 200 {
		t.Errorf("had it heard something: %d %s", code, body)
	}
}

// token of an account, which is made.
func (c *cluster) token(t *testing.T, account, audience string) string {
	t.Helper()
	accounts := c.core.CoreV1().ServiceAccounts("default")
	_, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		c.create(t, "account", err)
	}
	token, err := accounts.CreateToken(t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}},
	}, metav1.CreateOptions{})
	c.create(t, "token", err)
	return token.Status.Token
}

// distributed asks as the operator does, and as others might.
func (c *cluster) distributed(t *testing.T, root *pki.Bundle) {
	t.Helper()
	for name, tc := range map[string]struct{ token, wantErr string }{
		"the operator":                 {token: c.token(t, "operator", topology.DistributionAudience)},
		"another account":              {c.token(t, "web", topology.DistributionAudience), "403 Forbidden: system:serviceaccount:default:web may not"},
		"the operator's other token":   {c.token(t, "operator", authn.Audience), "401 Unauthorized: not authenticated: token: "},
		"a token of somebody's making": {"a.b.c", "401 Unauthorized: not authenticated: token: "},
		"no token":                     {"", "401 Unauthorized: not authenticated: no bearer token"},
	} {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(tc.token), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := distribution.Client{Token: file, Timeout: time.Minute}.Ask(t.Context(), distribution.ControlPlane{
			Name: "isthmusd-default.isthmus-system.svc", Root: root.RootPEM(), Replicas: []string{c.d.Addr("distribution").String()},
		}, "e1")
		if tc.wantErr == "" && err != nil || tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)) {
			t.Errorf("%s: got %v, want %q", name, err, tc.wantErr)
		}
	}
}

// issue gets a certificate for a service account's token, and with that the next.
func (c *cluster) issue(t *testing.T, root *pki.Bundle) tls.Certificate {
	t.Helper()
	token := c.token(t, "web", authn.Audience)
	first, err := c.ask(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), root)
	c.create(t, "certificate", err)
	next, err := c.ask(t.Context(), root, first)
	c.create(t, "certificate by certificate", err)
	if got := next.Leaf.URIs[0].String(); got != "spiffe://cluster.local/ns/default/sa/web" {
		t.Errorf("issued for %s", got)
	}
	return next
}

// ask asks for a certificate, showing these.
func (c *cluster) ask(ctx context.Context, root *pki.Bundle, shown ...tls.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	conn, err := grpc.NewClient(c.d.Addr("secure-grpc").String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: root.Pool(), ServerName: "isthmusd-default.isthmus-system.svc", Certificates: shown, MinVersion: tls.VersionTLS12,
	})))
	if err != nil {
		return tls.Certificate{}, err
	}
	defer func() { _ = conn.Close() }()
	res, err := istioca.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &istioca.IstioCertificateRequest{
		Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	})
	if err != nil {
		return tls.Certificate{}, err
	}
	certs, err := pki.ParseCertificates([]byte(res.GetCertChain()[0]))
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: key, Leaf: certs[0]}, nil
}

// forgetAccount deletes the account of a certificate, which then renews nothing. Who
// comes with an account of that name is let in again.
func (c *cluster) forgetAccount(t *testing.T, root *pki.Bundle) {
	t.Helper()
	cert := c.issue(t, root)
	accounts := c.core.CoreV1().ServiceAccounts("default")
	c.create(t, "deletion", accounts.Delete(t.Context(), "web", metav1.DeleteOptions{}))
	c.wait(t, "word of the deletion", func() bool { return !c.d.store.Current().HasAccount(model.Key{Namespace: "default", Name: "web"}) })
	if _, err := c.ask(t.Context(), root, cert); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "its ServiceAccount is gone") {
		t.Errorf("a certificate whose account is gone: %v", err)
	}
	c.issue(t, root)
}

// replaceRoot puts another root in the place of the published one. The control plane
// signs with it only once nothing is published any more: to begin anew is asked for.
func (c *cluster) replaceRoot(t *testing.T, ns string, root *pki.Bundle) {
	t.Helper()
	record := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "isthmus-ca-root-default"}, Data: map[string]string{pki.KeyRoot: string(root.RootPEM())}}
	_, err := c.core.CoreV1().ConfigMaps(ns).Create(t.Context(), record, metav1.CreateOptions{})
	c.create(t, "published root", err)
	next, err := pki.NewRoot(pki.RootOptions{Organization: "cluster.local", Validity: pki.Validity{Now: time.Now()}})
	c.create(t, "root", err)
	data, err := next.Data()
	c.create(t, "root's data", err)
	secret, err := c.core.CoreV1().Secrets(ns).Get(t.Context(), "isthmus-ca-default", metav1.GetOptions{})
	c.create(t, "read of the CA", err)
	secret.Data = data
	_, err = c.core.CoreV1().Secrets(ns).Update(t.Context(), secret, metav1.UpdateOptions{})
	c.create(t, "rotation", err)
	c.wait(t, "a word that the root is another's", func() bool { return strings.Contains(c.said.String(), "it holds another root") })
	if !c.d.security.authority.Bundle().Cert().Equal(root.Cert()) {
		t.Error("it signs with a root that the mesh does not trust")
	}
	c.issue(t, root)
	c.create(t, "deletion", c.core.CoreV1().ConfigMaps(ns).Delete(t.Context(), record.Name, metav1.DeleteOptions{}))
	c.wait(t, "the new CA", func() bool { return c.d.security.authority.Bundle().Cert().Equal(next.Cert()) })
}

func (c *cluster) wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s within 30 s", what)
		}
	}
}

// words is a log that can be read while it is written.
type words struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}
