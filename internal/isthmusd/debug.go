// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/generate"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/version"
)

// debugHandler is readiness and metrics for everybody, and the rest for people
// on this machine (or behind a port-forward, which ends here too).
func (d *Daemon) debugHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", d.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{}))
	local := http.NewServeMux()
	local.Handle("GET /debug/syncz", d.xds.Syncz())
	local.Handle("GET /debug/distribution", d.xds.DistributionHandler())
	local.HandleFunc("GET /debug/configz", d.configz)
	local.HandleFunc("GET /debug/snapshotz", d.snapshotz)
	local.HandleFunc("GET /debug/pprof/", pprof.Index)
	local.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	local.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	local.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	local.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("/debug/", fromLoopback(local))
	return mux
}

// monitoringHandler is what everybody in the cluster may ask, as Prometheus does.
func (d *Daemon) monitoringHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", d.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, version.Build()) })
	return mux
}

func fromLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if ip, perr := netip.ParseAddr(host); err != nil || perr != nil || !ip.Unmap().IsLoopback() {
			http.Error(w, "only from this machine; use kubectl port-forward", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (d *Daemon) ready(w http.ResponseWriter, _ *http.Request) {
	if !d.catalog.Ready() {
		waiting := d.ingest.Queue().Waiting()
		if len(waiting) == 0 {
			waiting = []string{"the first configuration to be built"}
		}
		http.Error(w, "waiting for "+strings.Join(waiting, ", "), http.StatusServiceUnavailable)
		return
	}
	if stalled := d.ingest.Queue().Stalled(); len(stalled) > 0 {
		http.Error(w, "no progress in "+strings.Join(stalled, ", "), http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "ready") // the client is gone if this fails
}

// snapshotz tells what isthmusd knows and what is wrong with it.
func (d *Daemon) snapshotz(w http.ResponseWriter, _ *http.Request) {
	s, q := d.store.Current(), d.ingest.Queue()
	problems := q.Problems()
	maps.Copy(problems, generate.Problems(s))
	writeJSON(w, map[string]any{
		"revision": s.Revision(), "epoch": s.Config().Epoch, "topology": s.Config().Topology,
		"ready": d.catalog.Ready(), "waiting": q.Waiting(), "stalled": q.Stalled(), "problems": problems,
		"counts": s.Counts(), "catalog": d.catalog.Stats(),
	})
}

// configz shows what a proxy should have: ?proxy=pod.namespace, &type=router for
// a gateway that is not connected; of what nothing is known it's taken for an Envoy
// of our own agent. Secrets are named, not shown.
func (d *Daemon) configz(w http.ResponseWriter, r *http.Request) {
	p, err := d.proxy(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	state, err := d.catalog.State(p)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	out := map[string]any{"revision": state.Revision, "epoch": state.Epoch}
	for t := range resource.NumTypes {
		list := []json.RawMessage{}
		for _, res := range state.Sets[t].List() {
			list = append(list, show(res))
		}
		out[t.URL()] = list
	}
	writeJSON(w, out)
}

// proxy is the proxy that a request asks about, as its pod describes it.
func (d *Daemon) proxy(r *http.Request) (*model.Proxy, error) {
	name, ns, ok := strings.Cut(r.URL.Query().Get("proxy"), ".")
	if !ok {
		return nil, errors.New("give ?proxy=<pod>.<namespace>")
	}
	p := &model.Proxy{
		ID: r.URL.Query().Get("proxy"), Type: "sidecar", Name: name, Namespace: ns,
		Interception: "REDIRECT", Delta: true, HostsApart: true,
	}
	if t := r.URL.Query().Get("type"); t != "" {
		p.Type = t
	}
	for _, s := range d.xds.Status() {
		if s.Name == name && s.Namespace == ns {
			p.Type, p.HostsApart, p.OnDemand = s.Type, s.HostsApart, s.OnDemand
		}
	}
	if pod := d.store.Current().Workload(model.Key{Namespace: ns, Name: name}); pod != nil {
		p.IPs, p.Labels, p.Ports, p.ServiceAccount = pod.IPs, pod.Labels, pod.Ports, pod.ServiceAccount
		p.Locality, p.Network, p.Node = pod.Locality, pod.Network, pod.Node
	}
	return p, nil
}

// show renders a resource as JSON; what cannot be read is named only.
func show(r *resource.Resource) json.RawMessage {
	name, _ := json.Marshal(map[string]string{"name": r.Name}) // strings always marshal
	if r.Type == resource.Secret {
		return name
	}
	full := protoreflect.FullName(strings.TrimPrefix(r.Type.URL(), "type.googleapis.com/"))
	mt, err := protoregistry.GlobalTypes.FindMessageByName(full)
	if err != nil {
		return name
	}
	m := mt.New().Interface()
	if err := proto.Unmarshal(r.Body, m); err != nil {
		return name
	}
	b, err := protojson.Marshal(m)
	if err != nil {
		return name
	}
	return b
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // the client is gone if this fails
}
