// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	istioca "istio.io/api/security/v1alpha1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd"
	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
	"github.com/isthmus-mesh/isthmus/internal/pki"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// TestControlPlaneHasTheRightsItNeeds runs isthmusd as the account that the operator
// made for it, with the rights that it bound, and has it do all that it asks of the
// API server. It must be refused nothing, and ask for all that it may.
func TestControlPlaneHasTheRightsItNeeds(t *testing.T) {
	m := newMesh(t, "rights", v1alpha1.EgressGateway, nil)
	m.holds(v1alpha1.EgressGateway)
	asked := &calls{verbs: map[string]bool{}}
	d := m.runControlPlane(asked)
	eventually(t, "readiness", func() error {
		res, err := http.Get("http://" + d.Addr("http").String() + "/ready")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s; refused: %q", res.Status, asked.refusals())
		}
		return nil
	})
	m.askForCertificate(d)
	m.askForDistribution(d)
	granted := map[string]bool{}
	for _, role := range []string{"isthmusd", "isthmusd-namespace"} {
		for _, r := range read(m, "", role, &rbacv1.ClusterRole{}).Rules {
			for _, verb := range r.Verbs {
				for _, resource := range r.Resources {
					granted[verb+" "+strings.Join(r.APIGroups, ",")+"/"+resource] = true
				}
			}
		}
	}
	// A kind that is watched is listed by API servers that cannot begin a watch with all there is.
	eventually(t, "each watch", func() error {
		used := asked.seen()
		for what := range granted {
			if w := strings.Replace(what, "list ", "watch ", 1); !used[what] && !used[w] {
				return fmt.Errorf("it has the right to %s and does not ask for it; it asks for %q", what, slices.Sorted(maps.Keys(used)))
			}
		}
		return nil
	})
	if refused := asked.refusals(); len(refused) > 0 {
		t.Errorf("it was refused: %q", refused)
	}
	m.leavesNothing()
}

// runControlPlane runs isthmusd as its ServiceAccount, until the test ends.
func (m *mesh) runControlPlane(asked *calls) *isthmusd.Daemon {
	m.t.Helper()
	account := read(m, m.own, "isthmusd-"+m.name, &corev1.ServiceAccount{})
	config := rest.CopyConfig(m.world.config)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + m.own + ":" + account.Name, UID: string(account.UID),
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + m.own, "system:authenticated"},
	}
	config.Wrap(asked.through)
	ctx, stop := context.WithCancel(m.t.Context())
	d, err := isthmusd.New(ctx, isthmusd.Config{
		Kubernetes: config, Log: slog.New(slog.DiscardHandler), Operator: operatorUser,
		Topology: topology.Config{Name: m.name, Namespace: m.own, Revision: m.name + "-0-1-0"},
		Addresses: isthmusd.Addresses{
			HTTP: "127.0.0.1:0", SecureGRPC: "127.0.0.1:0", Webhook: "127.0.0.1:0", Distribution: "127.0.0.1:0",
		},
	})
	if err != nil {
		stop()
		m.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	m.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			m.t.Error(err)
		}
	})
	return d
}

// root is what certificates of the mesh lead to.
func (m *mesh) root() []byte {
	return []byte(read(m, m.own, "isthmus-ca-root-"+m.name, &corev1.ConfigMap{}).Data["root-cert.pem"])
}

// token of an account, for those who will have it reviewed.
func (m *mesh) token(namespace, account, audience string) string {
	m.t.Helper()
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}}
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}
	if err := m.admin.SubResource("token").Create(m.t.Context(), a, r); err != nil {
		m.t.Fatal(err)
	}
	return r.Status.Token
}

func (m *mesh) controlPlaneName() string { return "isthmusd-" + m.name + "." + m.own + ".svc" }

// askForCertificate gets one for an account's token, as proxies do.
func (m *mesh) askForCertificate(d *isthmusd.Daemon) {
	m.t.Helper()
	m.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: m.member, Name: "web"}})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		m.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(m.root())
	conn, err := grpc.NewClient(d.Addr("secure-grpc").String(), grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, m.controlPlaneName())))
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(m.t.Context(), "authorization", "Bearer "+m.token(m.member, "web", "istio-ca"))
	res, err := istioca.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &istioca.IstioCertificateRequest{
		Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	chain, err := pki.ParseCertificates([]byte(res.GetCertChain()[0]))
	if err != nil || len(chain[0].URIs) != 1 || chain[0].URIs[0].String() != "spiffe://cluster.local/ns/"+m.member+"/sa/web" {
		m.t.Errorf("got a certificate for %v, %v", chain[0].URIs, err)
	}
}

// askForDistribution asks how far the configuration has got, as the operator does.
func (m *mesh) askForDistribution(d *isthmusd.Daemon) {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(m.token(operatorNamespace, operatorAccount, topology.DistributionAudience)), 0o600); err != nil {
		m.t.Fatal(err)
	}
	_, err := distribution.Client{Token: file, Timeout: time.Minute}.Ask(m.t.Context(), distribution.ControlPlane{
		Name: m.controlPlaneName(), Root: m.root(), Replicas: []string{d.Addr("distribution").String()},
	}, m.config().Epoch)
	if err != nil {
		m.t.Error(err)
	}
}

// calls are what an account asked of the API server: "verb group/resource".
type calls struct {
	mu      sync.Mutex
	verbs   map[string]bool
	refused []string
}

func (c *calls) through(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		if err != nil {
			return res, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		what, err := verb(req)
		if err != nil {
			return res, err
		}
		c.verbs[what] = true
		if res.StatusCode == http.StatusForbidden {
			c.refused = append(c.refused, what)
		}
		return res, nil
	})
}

func (c *calls) seen() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.verbs)
}

func (c *calls) refusals() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.refused)
}

// verb is what RBAC takes a request for. Discovery needs no right of one's own.
func verb(req *http.Request) (string, error) {
	path := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	group := ""
	switch path[0] {
	case "api":
		path = path[min(2, len(path)):]
	case "apis":
		group = path[min(1, len(path)-1)]
		path = path[min(3, len(path)):]
	default:
		return "", errors.New("neither /api nor /apis: " + req.URL.Path)
	}
	if len(path) == 0 {
		return "discover", nil
	}
	if path[0] == "namespaces" && len(path) > 2 {
		path = path[2:]
	}
	verb := strings.ToLower(req.Method)
	switch {
	case req.Method == http.MethodPost:
		verb = "create"
	case req.Method == http.MethodPut:
		verb = "update"
	case req.Method == http.MethodGet && req.URL.Query().Get("watch") != "":
		verb = "watch"
	case req.Method == http.MethodGet && len(path) == 1:
		verb = "list"
	}
	return verb + " " + group + "/" + path[0], nil
}
