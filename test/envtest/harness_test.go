// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package envtest runs every controller against a real API server, as the service
// account that the chart makes and with the rights that the chart gives: any
// refusal fails the tests. There is no kubelet, no controller manager and no
// garbage collector; Deployments become ready when the tests say so, and what is
// deleted was deleted by the operator.
package envtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	runs "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/charts"
	"github.com/isthmus-mesh/isthmus/controllers"
	"github.com/isthmus-mesh/isthmus/controllers/topology"
	"github.com/isthmus-mesh/isthmus/internal/operator/crds"
	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
	"github.com/isthmus-mesh/isthmus/internal/render"
	"github.com/isthmus-mesh/isthmus/internal/version"
)

const (
	operatorNamespace = "isthmus-operator"
	operatorAccount   = "isthmus-operator"
)

// world is one API server with one operator, shared by all tests: each has a
// topology and a namespace of its own.
type world struct {
	config   *rest.Config
	admin    client.Client
	requests *recorder
	witness  *witness
	proxies  *proxies
	kubelet  *kubelet
	health   *health
	operator *process
	// ahead is how far the operator's clock is ahead.
	ahead atomic.Int64
	// life of all tests.
	life context.Context
}

var shared *world

func TestMain(m *testing.M) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		fmt.Println("skipped: KUBEBUILDER_ASSETS is not set; \"make envtest\" sets it, or bin/devcluster assets prints a value")
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "envtest:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	log.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	env := &envtest.Environment{}
	config, err := env.Start()
	if err != nil {
		return 0, fmt.Errorf("start the API server: %w", err)
	}
	defer func() {
		if err := env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the API server:", err)
		}
	}()
	ctx, stop := context.WithCancel(context.Background())
	w, wait, err := start(ctx, config)
	if err != nil {
		stop()
		return 0, err
	}
	shared = w
	code := m.Run()
	if refused := w.requests.refusals(); len(refused) > 0 {
		fmt.Fprintf(os.Stderr, "the operator was refused %d times: %q\n", len(refused), refused)
		code = 1
	}
	if wrong := w.health.rest(); len(wrong) > 0 {
		fmt.Fprintf(os.Stderr, "what was said of meshes: %q\n", wrong)
		code = 1
	}
	stop()
	return code, wait()
}

// start installs the chart and runs the operator as its service account.
func start(ctx context.Context, config *rest.Config) (*world, func() error, error) {
	scheme, err := controllers.Scheme()
	if err != nil {
		return nil, nil, err
	}
	config.QPS, config.Burst = -1, -1
	admin, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, nil, err
	}
	w := &world{
		life: ctx, config: config, admin: admin, requests: newRecorder(), witness: newWitness(), proxies: &proxies{followed: map[string]bool{}},
		kubelet: &kubelet{client: admin, held: map[string]bool{}}, health: newHealth(),
	}
	if err := install(ctx, admin); err != nil {
		return nil, nil, fmt.Errorf("install the chart: %w", err)
	}
	if err := w.boot(ctx); err != nil {
		return nil, nil, err
	}
	kubelets, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Controller: runs.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(ctrl.NewControllerManagedBy(kubelets).For(&appsv1.Deployment{}).Complete(w.kubelet), w.health.watch(ctx, kubelets.GetCache())); err != nil {
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- kubelets.Start(ctx) }()
	return w, func() error { return errors.Join(<-w.operator.ended, <-ended) }, nil
}

// process is one run of the operator.
type process struct {
	stop  context.CancelFunc
	dead  atomic.Bool
	ended chan error
}

// boot starts the operator, as the chart's service account.
func (w *world) boot(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	p := &process{stop: stop, ended: make(chan error, 1)}
	config := rest.CopyConfig(w.config)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: operatorUser,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + operatorNamespace, "system:authenticated"},
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return w.observed(ctx.Done(), p, next) })
	mgr, err := manager(config, w)
	if err != nil {
		return err
	}
	keeper, err := crds.NewKeeper(config, crds.IfAbsent)
	if err != nil {
		return err
	}
	if err := mgr.Add(keeper); err != nil {
		return err
	}
	w.operator = p
	go func() { p.ended <- mgr.Start(ctx) }()
	return nil
}

// observed passes the requests of one run of the operator, while it lives.
func (w *world) observed(ended <-chan struct{}, p *process, next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if p.dead.Load() {
			return nil, errors.New("the operator is dead")
		}
		if err := w.witness.before(ended, req); err != nil {
			return nil, err
		}
		defer w.witness.answered(req)
		res, err := next.RoundTrip(req)
		if err == nil {
			w.requests.note(req, res)
			w.witness.after(w.proxies, req, res)
		}
		return res, err
	})
}

// now is the operator's time.
func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// kill ends the operator in the middle of whatever it does; its lease runs out.
func (w *world) kill(t *testing.T) {
	t.Helper()
	w.operator.dead.Store(true)
	w.operator.stop()
	if err := <-w.operator.ended; err != nil {
		t.Logf("the operator died of %v", err)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: leaseName}}
	if err := w.admin.Delete(t.Context(), lease); err != nil {
		t.Fatalf("end the lease: %v", err)
	}
}

const leaseName = "isthmus-operator"

func manager(cfg *rest.Config, w *world) (ctrl.Manager, error) {
	scheme, err := controllers.Scheme()
	if err != nil {
		return nil, err
	}
	cached, err := controllers.CacheOptions()
	if err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme, Cache: cached, Metrics: server.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: leaseName, LeaderElectionNamespace: operatorNamespace,
		// More than one run of the operator is made in this process, and a mesh that it
		// is cut off from holds up no other.
		Controller: runs.Controller{SkipNameValidation: new(true), MaxConcurrentReconciles: 16},
	})
	if err != nil {
		return nil, err
	}
	return mgr, controllers.Setup(mgr, controllers.Options{
		Settings: topology.Settings{
			Version: version.Current, Registry: "isthmus", ClusterDomain: "cluster.local",
			Namespace: operatorNamespace, ServiceAccount: operatorAccount,
		},
		Distribution: w.proxies, Prober: answering{}, Metrics: prometheus.NewRegistry(), Clock: w.now,
	})
}

// install applies the operator's chart, all but its Deployment, and waits for its
// CRDs.
func install(ctx context.Context, admin client.Client) error {
	objects, err := render.Chart(charts.FS, charts.Operator, render.Release{Name: "isthmus", Namespace: operatorNamespace},
		map[string]any{"createNamespace": true})
	if err != nil {
		return err
	}
	for _, kind := range []string{"Namespace", ""} {
		for _, o := range objects {
			if o.GetKind() == "Deployment" || (kind == "") == (o.GetKind() == "Namespace") {
				continue
			}
			if err := admin.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test"), client.ForceOwnership); err != nil {
				return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
			}
		}
	}
	if err := admin.Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"k8s-app": "kube-dns"}, Ports: []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}},
		},
	}); err != nil {
		return fmt.Errorf("install DNS: %w", err)
	}
	return poll(ctx, func() error {
		return errors.Join(admin.List(ctx, &v1alpha1.MeshTopologyList{}), admin.List(ctx, &v1alpha1.MeshMemberList{}))
	})
}

// answering is a webhook that answers every probe.
type answering struct{}

func (answering) Probe(context.Context, string, string, []byte) error { return nil }

// proxies stand for isthmusd's report of who follows.
type proxies struct {
	mu   sync.Mutex
	held bool
	// followed are the epochs that all were said to follow.
	followed map[string]bool
}

func (p *proxies) follow(epoch string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.followed[epoch]
}

func (p *proxies) hold(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = held
}

// Ask says that all follow, unless held.
func (p *proxies) Ask(_ context.Context, _ distribution.ControlPlane, epoch string) (distribution.Report, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		return distribution.Report{}, errors.New("held by the test")
	}
	p.followed[epoch] = true
	return distribution.Report{Epoch: epoch}, nil
}

// kubelet makes Deployments ready, but those that are held.
type kubelet struct {
	client client.Client
	mu     sync.Mutex
	held   map[string]bool
}

func (k *kubelet) hold(name string, held bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[name] = held
}

func (k *kubelet) holds(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held[name]
}

// Reconcile writes the status of a Deployment whose pods run.
func (k *kubelet) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if k.holds(req.Name) {
		return ctrl.Result{RequeueAfter: 20 * time.Millisecond}, nil
	}
	var d appsv1.Deployment
	if err := k.client.Get(ctx, req.NamespacedName, &d); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := d.DeepCopy()
	n := int32(1)
	if d.Spec.Replicas != nil {
		n = *d.Spec.Replicas
	}
	d.Status = appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation, Replicas: n, ReadyReplicas: n, UpdatedReplicas: n, AvailableReplicas: n,
		Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, Reason: "Test"}},
	}
	return ctrl.Result{}, client.IgnoreNotFound(k.client.Status().Patch(ctx, &d, client.MergeFrom(before)))
}

// recorder sees every request of the operator.
type recorder struct {
	mu      sync.Mutex
	refused []string
	writes  []string
	reads   map[string]int
}

func newRecorder() *recorder { return &recorder{reads: map[string]int{}} }

func (r *recorder) note(req *http.Request, res *http.Response) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := req.Method + " " + req.URL.Path
	if res.StatusCode == http.StatusForbidden {
		r.refused = append(r.refused, what)
	}
	switch {
	case req.Method == http.MethodGet:
		r.reads[req.URL.Path]++
	case strings.Contains(req.URL.Path, "/leases/"), strings.HasSuffix(req.URL.Path, "/leases"),
		strings.HasSuffix(req.URL.Path, "selfsubjectaccessreviews"):
		// The lease is renewed at all times, and a review writes nothing.
	default:
		r.writes = append(r.writes, what)
	}
}

func (r *recorder) written() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.writes...)
}

func (r *recorder) read(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reads[path]
}

func (r *recorder) refusals() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.refused...)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// patience is how long something may take to come true.
const patience = 60 * time.Second

// poll tries until there is no error any more.
func poll(ctx context.Context, try func() error) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	if err := poll(t.Context(), try); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
