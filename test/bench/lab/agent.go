// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
)

// Agent is a real isthmus-agent with a real Envoy, beside no application.
type Agent struct {
	process *Process
	// Admin is Envoy's admin interface.
	Admin string
}

// AgentPrograms are the programs of an Agent.
type AgentPrograms struct{ Agent, Envoy string }

// RunAgent runs an agent as the workload of a service, which must be a Kubernetes
// one, and waits until its Envoy is ready. Environment adds to what it gets.
func (l *Lab) RunAgent(ctx context.Context, programs AgentPrograms, v mesh.Service, environment ...string) (*Agent, error) {
	root, err := os.MkdirTemp(l.o.Dir, "agent-")
	if err != nil {
		return nil, err
	}
	// The agent starts it in a directory of its own.
	envoy, err := filepath.Abs(programs.Envoy)
	if err != nil {
		return nil, err
	}
	if err := l.mount(root, v); err != nil {
		return nil, err
	}
	var ports [4]string
	for i := range ports {
		addr, err := freeAddress()
		if err != nil {
			return nil, err
		}
		_, ports[i], _ = net.SplitHostPort(addr) // it has one
	}
	config, err := json.Marshal(map[string]any{"discoveryAddress": l.byName("secure-grpc"), "concurrency": 2})
	if err != nil {
		return nil, err
	}
	e := v.Endpoint(0)
	env := append([]string{
		"POD_NAME=" + e.Pod, "POD_NAMESPACE=" + v.Namespace(), "INSTANCE_IP=" + e.Address, "SERVICE_ACCOUNT=" + v.Name,
		"CA_ADDR=" + l.byName("secure-grpc"), "PROXY_CONFIG=" + string(config), "TRUST_DOMAIN=cluster.local",
		"ISTIO_META_CLUSTER_ID=Kubernetes", "ISTIO_META_INTERCEPTION_MODE=REDIRECT",
	}, environment...)
	a := &Agent{Admin: "127.0.0.1:" + ports[0]}
	a.process, err = Start(filepath.Join(root, "log"), env, programs.Agent, "proxy", "sidecar",
		"--root", root, "--envoy", envoy, "--admin", a.Admin,
		"--status-port", ports[1], "--health-port", ports[2], "--metrics-port", ports[3])
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err = a.process.Until(ctx, "Envoy to be ready", func() bool {
		r, err := http.Get("http://127.0.0.1:" + ports[1] + "/healthz/ready")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	if err != nil {
		a.Stop()
		return nil, err
	}
	return a, nil
}

// byName is the address of a part under a name that its certificate has.
func (l *Lab) byName(part string) string {
	return strings.Replace(l.Addr(part), "127.0.0.1", "localhost", 1)
}

// mount writes what a pod's volumes would hold.
func (l *Lab) mount(root string, v mesh.Service) error {
	labels := ""
	for k, x := range v.Labels(v.Endpoint(0)) {
		labels += fmt.Sprintf("%s=%q\n", k, x)
	}
	var errs []error
	for name, data := range map[string]string{
		"var/run/secrets/istio/root-cert.pem": string(l.CA.RootPEM()),
		"var/run/secrets/tokens/istio-token":  v.Namespace() + "/" + v.Name,
		"etc/istio/pod/labels":                labels,
		"etc/istio/pod/annotations":           "",
	} {
		p := filepath.Join(root, name)
		errs = append(errs, os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(data), 0o600))
	}
	return errors.Join(errs...)
}

// Use is what the agent takes, without its Envoy.
func (a *Agent) Use() (Use, error) { return UseOf(a.process.PID()) }

// EnvoyUse is what its Envoy takes.
func (a *Agent) EnvoyUse() (Use, error) {
	pid := a.process.PID()
	// Any of the agent's threads may be the parent.
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return Use{}, err
	}
	for _, t := range threads {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // the thread has ended
		}
		if child, _, _ := strings.Cut(string(b), " "); child != "" {
			envoy, err := strconv.Atoi(child)
			if err != nil {
				return Use{}, err
			}
			return UseOf(envoy)
		}
	}
	return Use{}, fmt.Errorf("agent %d has no Envoy", pid)
}

// Stop ends the agent and its Envoy.
func (a *Agent) Stop() { a.process.Stop() }
