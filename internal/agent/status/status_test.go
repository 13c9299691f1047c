// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// envoy answers with what it is given.
type envoy struct {
	stats   map[string]int64
	metrics string
	err     error
}

func (e envoy) Stats(context.Context, string) (map[string]int64, error) { return e.stats, e.err }

func (e envoy) Prometheus(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(e.metrics)), e.err
}

func good() map[string]int64 {
	return map[string]int64{
		"cluster_manager.cds.update_success": 2, "listener_manager.lds.update_success": 1,
		"listener_manager.workers_started": 1, "server.state": 0,
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	without := func(k string) map[string]int64 {
		m := good()
		delete(m, k)
		return m
	}
	tests := map[string]struct {
		envoy    envoy
		draining bool
		want     int
	}{
		"configured and live":    {envoy: envoy{stats: good()}, want: 200},
		"no clusters yet":        {envoy: envoy{stats: without("cluster_manager.cds.update_success")}, want: 503},
		"no listeners yet":       {envoy: envoy{stats: without("listener_manager.lds.update_success")}, want: 503},
		"workers do not run":     {envoy: envoy{stats: without("listener_manager.workers_started")}, want: 503},
		"says nothing of itself": {envoy: envoy{stats: without("server.state")}, want: 503},
		"not there":              {envoy: envoy{err: fmt.Errorf("refused")}, want: 503},
		"draining":               {envoy: envoy{stats: good()}, draining: true, want: 503},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := NewServer(Options{Envoy: tt.envoy, Agent: prometheus.NewRegistry()})
			if tt.draining {
				s.SetDraining()
			}
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz/ready", nil))
			if w.Code != tt.want {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tt.want)
			}
		})
	}
}

func TestMetricsAreMerged(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/m" {
			_, _ = w.Write([]byte("app_total 1\n"))
		}
	}))
	defer app.Close()
	target, err := ParseTarget(`{"scrape":"true","path":"m","port":"` + strconv.Itoa(port(app.Listener)) + `"}`)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "agent_total"})
	reg.MustRegister(c)
	long := "envoy_long{x=\"" + strings.Repeat("y", 100<<10) + "\"} 1\n"
	e := envoy{metrics: "# TYPE envoy_istio_requests_total counter\nenvoy_istio_requests_total{a=\"envoy_istio_\"} 1\nenvoy_server_live 1\n" + long}
	w := httptest.NewRecorder()
	NewServer(Options{Envoy: e, Agent: reg, App: target, Log: logr.Discard()}).Handler().
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/stats/prometheus", nil))
	want := "# HELP agent_total \n# TYPE agent_total counter\nagent_total 0\n" +
		"# TYPE istio_requests_total counter\nistio_requests_total{a=\"envoy_istio_\"} 1\nenvoy_server_live 1\n" + long +
		"app_total 1\n"
	if d := cmp.Diff(want, w.Body.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestParseTarget(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text    string
		want    *Target
		wantErr bool
	}{
		"nothing":        {},
		"not wanted":     {text: `{"scrape":"false","port":"9090"}`},
		"defaults":       {text: `{"scrape":"true"}`, want: &Target{Scrape: "true", Path: "/metrics", Port: "80"}},
		"not JSON":       {text: "x", wantErr: true},
		"port is a name": {text: `{"scrape":"true","port":"http"}`, wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseTarget(tt.text)
			if (err != nil) != tt.wantErr {
				t.Fatalf("error %v", err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestAGatewayTakesNoOrders(t *testing.T) {
	t.Parallel()
	h := NewServer(Options{Envoy: envoy{}}).Handler()
	for _, path := range []string{"/quitquitquit", "/drain"} {
		r := httptest.NewRequest(http.MethodPost, path, nil)
		r.RemoteAddr = "127.0.0.1:1234"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusNotFound {
			t.Errorf("POST %s: got %d, want 404", path, w.Code)
		}
	}
}

func TestOnlyThePodEndsItself(t *testing.T) {
	t.Parallel()
	quits := 0
	h := NewServer(Options{Envoy: envoy{}, Quit: func() { quits++ }, Drain: func() {}}).Handler()
	tests := map[string]struct {
		method, from string
		want         int
	}{
		"from elsewhere":   {http.MethodPost, "10.0.0.9:1234", 403},
		"from the pod":     {http.MethodPost, "127.0.0.1:1234", 200},
		"from the pod, v6": {http.MethodPost, "[::1]:1234", 200},
		"by accident":      {http.MethodGet, "127.0.0.1:1234", 405},
	}
	for name, tt := range tests {
		r := httptest.NewRequest(tt.method, "/quitquitquit", nil)
		r.RemoteAddr = tt.from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s: got %d, want %d", name, w.Code, tt.want)
		}
	}
	if quits != 1 {
		t.Errorf("quit %d times, want once", quits)
	}
}

// application is one that has something to probe.
func application(t *testing.T) (httpPort, httpsPort, grpcPort, closedPort int) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			if r.Host != "app.example" || r.Header.Get("X-Probe") != "1" || r.UserAgent() != "kube-probe/1.36" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/moved":
			http.Redirect(w, r, "/bad", http.StatusFound)
		case "/away":
			http.Redirect(w, r, "http://example.com/", http.StatusFound)
		default:
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(s.Close)
	secure := httptest.NewTLSServer(s.Config.Handler)
	t.Cleanup(secure.Close)
	g := grpc.NewServer()
	h := health.NewServer()
	h.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	grpc_health_v1.RegisterHealthServer(g, h)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	return port(s.Listener), port(secure.Listener), port(l), port(gone)
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func TestProbes(t *testing.T) {
	t.Parallel()
	h, s, g, closed := application(t)
	probers := map[string]string{
		"/app-health/a/readyz":      fmt.Sprintf(`{"httpGet":{"path":"/ok","port":%d,"httpHeaders":[{"name":"Host","value":"app.example"},{"name":"X-Probe","value":"1"}]}}`, h),
		"/app-health/a/livez":       fmt.Sprintf(`{"httpGet":{"path":"bad","port":"%d"},"timeoutSeconds":5}`, h),
		"/app-health/a/moved":       fmt.Sprintf(`{"httpGet":{"path":"/moved","port":%d}}`, h),
		"/app-health/a/away":        fmt.Sprintf(`{"httpGet":{"path":"/away","port":%d}}`, h),
		"/app-health/a/secure":      fmt.Sprintf(`{"httpGet":{"path":"/ok","port":%d,"scheme":"HTTPS","httpHeaders":[{"name":"Host","value":"app.example"},{"name":"X-Probe","value":"1"}]}}`, s),
		"/app-health/a/unsecure":    fmt.Sprintf(`{"httpGet":{"path":"/ok","port":%d,"scheme":"HTTPS"}}`, h),
		"/app-health/b/livez":       fmt.Sprintf(`{"tcpSocket":{"port":%d}}`, h),
		"/app-health/b/readyz":      fmt.Sprintf(`{"tcpSocket":{"port":%d}}`, closed),
		"/app-health/c/livez":       fmt.Sprintf(`{"grpc":{"port":%d,"service":null}}`, g),
		"/app-health/c/readyz":      fmt.Sprintf(`{"grpc":{"port":%d,"service":"down"}}`, g),
		"/app-lifecycle/a/prestopz": fmt.Sprintf(`{"httpGet":{"path":"/bad","port":%d}}`, h),
	}
	want := map[string]int{
		"/app-health/a/readyz": 200, "/app-health/a/livez": 418, "/app-health/a/moved": 418, "/app-health/a/away": 302,
		"/app-health/a/secure": 200, "/app-health/a/unsecure": 500,
		"/app-health/b/livez": 200, "/app-health/b/readyz": 500,
		"/app-health/c/livez": 200, "/app-health/c/readyz": 500,
		"/app-lifecycle/a/prestopz": 418, "/app-health/x/livez": 404,
	}
	var parts []string
	for k, v := range probers {
		parts = append(parts, fmt.Sprintf("%q:%s", k, v))
	}
	parsed, err := ParseProbers("{" + strings.Join(parts, ",") + "}")
	if err != nil {
		t.Fatal(err)
	}
	handler := NewServer(Options{Envoy: envoy{}, Probers: parsed, ProbeFrom: "127.0.0.6", ProbeTo: "127.0.0.1"}).Handler()
	for path := range maps.Keys(want) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("User-Agent", "kube-probe/1.36")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != want[path] {
			t.Errorf("%s: got %d %s, want %d", path, w.Code, w.Body, want[path])
		}
	}
}

func FuzzParseProbers(f *testing.F) {
	f.Add(`{"/app-health/a/livez":{"tcpSocket":{"port":1}}}`)
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseProbers(s)
		if err != nil && m != nil {
			t.Errorf("%v with error %v", m, err)
		}
	})
}
