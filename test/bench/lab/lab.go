// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package lab runs a real isthmusd over a synthetic mesh, which it reads from a
// fake API server, and says what it takes of the machine.
package lab

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/pki"
	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/test/bench/kubeapi"
	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
)

// Options of a Lab.
type Options struct {
	// Program is the isthmusd to run, Args are more of its arguments and Env more
	// of its environment.
	Program string
	Args    []string
	Env     []string
	Shape   *mesh.Shape
	// Dir is for files: logs and profiles stay there.
	Dir string
}

// Lab is a control plane and its mesh.
type Lab struct {
	o          Options
	API        *kubeapi.Server
	CA         *pki.Bundle
	server     *http.Server
	kubeconfig string
	ports      map[string]string
	control    *Process
	started    time.Time
}

// New makes a mesh and serves it; nothing reads it yet.
func New(o Options) (*Lab, error) {
	l := &Lab{o: o, API: kubeapi.New(), ports: map[string]string{}}
	for _, port := range []string{"grpc", "secure-grpc", "webhook", "http"} {
		addr, err := freeAddress()
		if err != nil {
			return nil, err
		}
		l.ports[port] = addr
	}
	if err := l.fill(); err != nil {
		return nil, err
	}
	return l, l.serve()
}

func freeAddress() (string, error) {
	n, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	defer n.Close()
	return n.Addr().String(), nil
}

// fill puts the mesh, and what isthmusd needs to start, into the API server.
func (l *Lab) fill() error {
	for o := range l.o.Shape.Objects {
		if err := l.API.Put(o); err != nil {
			return err
		}
	}
	ca, err := pki.NewRoot(pki.RootOptions{Organization: "cluster.local", Validity: pki.Validity{Now: time.Now()}})
	if err != nil {
		return fmt.Errorf("make CA: %w", err)
	}
	l.CA = ca
	data, err := ca.Data()
	if err != nil {
		return fmt.Errorf("make CA: %w", err)
	}
	secret := map[string]any{}
	for k, v := range data {
		secret[k] = base64.StdEncoding.EncodeToString(v)
	}
	config := fmt.Sprintf(`{name: default, namespace: %s, topology: %s, outbound: %s, epoch: e1,
		injection: {image: "isthmus/isthmus-proxy:bench"}}`, mesh.Root, topology.IngressOnly, topology.AllowAny)
	for _, o := range []mesh.Object{
		mesh.Account("ns-0", "svc-0"), // whose certificates are renewed
		mesh.Plain("Secret", "isthmus-ca-default", secret),
		mesh.Plain("ConfigMap", topology.ConfigMapName("default"), map[string]any{topology.ConfigKey: config}),
	} {
		if err := l.API.Put(o); err != nil {
			return err
		}
	}
	return nil
}

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://%s"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

func (l *Lab) serve() error {
	n, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("serve Kubernetes: %w", err)
	}
	l.server = &http.Server{Handler: l.API, ReadHeaderTimeout: time.Minute}
	go func() { _ = l.server.Serve(n) }() // ends with Close
	l.kubeconfig = filepath.Join(l.o.Dir, "kubeconfig")
	return os.WriteFile(l.kubeconfig, fmt.Appendf(nil, kubeconfig, n.Addr()), 0o600)
}

// Close ends the control plane and the API server.
func (l *Lab) Close() {
	if l.control != nil {
		l.control.Stop()
	}
	if l.server != nil {
		_ = l.server.Close()
	}
}

// Addr is where the control plane serves a part: grpc, secure-grpc, webhook, http.
func (l *Lab) Addr(part string) string { return l.ports[part] }

// startLimit is what isthmusd may take to be ready.
const startLimit = 2 * time.Minute

// Run starts isthmusd and returns the seconds until it was ready.
func (l *Lab) Run(ctx context.Context) (float64, error) {
	args := []string{"--kubeconfig", l.kubeconfig, "--monitoring-addr", "", "--distribution-addr", ""}
	for part, addr := range l.ports {
		args = append(args, "--"+part+"-addr", addr)
	}
	l.started = time.Now()
	var err error
	l.control, err = Start(filepath.Join(l.o.Dir, "isthmusd.log"), l.o.Env, l.o.Program, append(args, l.o.Args...)...)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err = l.control.Until(ctx, "isthmusd to be ready", func() bool {
		r, err := http.Get("http://" + l.Addr("http") + "/ready")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return time.Since(l.started).Seconds(), err
}

// Kill ends isthmusd at once; Run starts it again.
func (l *Lab) Kill() { l.control.Kill() }

// Use is what isthmusd takes now.
func (l *Lab) Use() (Use, error) { return UseOf(l.control.PID()) }

// ResetPeak begins to look for the peak anew.
func (l *Lab) ResetPeak() error { return ResetPeak(l.control.PID()) }

// Profile fetches a profile of isthmusd into a file: "heap?gc=1", or
// "profile?seconds=5", which takes as long.
func (l *Lab) Profile(ctx context.Context, what, file string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Addr("http")+"/debug/pprof/"+what, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("profile isthmusd: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("profile isthmusd: %w", err)
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(l.o.Dir, file)
	}
	return os.WriteFile(file, b, 0o644)
}
