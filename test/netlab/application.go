// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/test/simulation"
)

// application is what listens on a port of a machine, as far as the evaluator
// needs to know it: testapp, or the agent.
type application struct {
	pod  *Pod
	port int
}

// Ports of the agent and of Envoy's administration, which answer everything that
// proxies are made to ask them.
const (
	adminPort  = 15000
	statusPort = 15020
)

// hostPorts are those of hosts outside, by what is spoken there.
func hostPorts() map[string]int {
	return map[string]int{"http": 80, "http-alt": 8080, "https": 443, "tcp": 9000, "grpc": 50051}
}

// Serve answers as testapp does.
func (a application) Serve(r simulation.Request) simulation.Answer {
	none := simulation.Answer{Closed: true}
	if a.pod.agent != nil && (a.port == adminPort || a.port == statusPort) {
		return simulation.Answer{By: "agent", Status: http.StatusOK}
	}
	switch kind := a.kind(); {
	case a.pod.app == nil || kind == "":
		return none
	case kind == "https" && len(r.TLS) == 1 && r.Protocol != simulation.TCP:
		if ok, err := r.TLS[0].Trusts(a.certificate()); err != nil || !ok {
			return none
		}
		return a.web(r)
	case len(r.TLS) > 0:
		return none
	case (kind == "tcp" || kind == "mysql") && r.Protocol == simulation.TCP:
		return simulation.Answer{By: a.pod.appName()}
	case kind == "http" && r.Protocol != simulation.TCP:
		return a.web(r)
	case kind == "grpc" && r.Protocol == simulation.HTTP2 && len(r.Headers["content-type"]) > 0:
		return simulation.Answer{By: a.pod.appName(), Status: http.StatusOK}
	}
	return none
}

// kind is what the port speaks, by the name that it has.
func (a application) kind() string {
	ports := a.pod.Ports
	if ports == nil {
		ports = hostPorts()
	}
	for name, port := range ports {
		if port == a.port {
			kind, _, _ := strings.Cut(strings.TrimPrefix(name, "any-"), "-")
			return kind
		}
	}
	return ""
}

// web is what testapp's handler makes of a path.
func (a application) web(r simulation.Request) simulation.Answer {
	out := simulation.Answer{By: a.pod.appName(), Status: http.StatusOK}
	u, err := url.Parse(r.Path)
	if err != nil {
		return simulation.Answer{Status: http.StatusBadRequest}
	}
	q := u.Query()
	if n, err := strconv.ParseUint(q.Get("fail"), 10, 32); err == nil {
		out.Fails = uint32(n)
	}
	if n, err := strconv.Atoi(q.Get("status")); err == nil && n >= 200 && n < 600 {
		out.Status = n
	}
	if d, err := time.ParseDuration(q.Get("delay")); err == nil {
		out.After = d
	}
	if r.Upgrade != "" && u.Path == "/ws" {
		out.Status = http.StatusSwitchingProtocols
	}
	return out
}

// certificate holds the names in the application's.
func (a application) certificate() []string {
	p := a.pod
	if len(p.Hosts) > 0 {
		return p.Hosts
	}
	return []string{p.App, p.App + "." + p.Namespace, p.App + "." + p.Namespace + ".svc." + clusterDomain}
}

// appName is what the application calls itself.
func (p *Pod) appName() string {
	if len(p.Hosts) > 0 {
		return p.Hosts[0]
	}
	return p.Name
}
