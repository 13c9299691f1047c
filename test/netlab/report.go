// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// report prints what helps to understand a failure besides the configuration that
// the request met: the ends of all logs, and what proxies refused.
func (l *Lab) report() {
	if !l.t.Failed() {
		return
	}
	l.t.Logf("--- what came true before\n%s", strings.Join(l.cameTrue, "\n"))
	for _, p := range append(append([]*Pod{}, l.pods...), l.hosts...) {
		for _, proc := range []*process{p.app, p.agent} {
			if proc != nil {
				l.t.Logf("--- log of %s (%s)\n%s", proc.name, p.IP, tail(proc.log, 30))
			}
		}
		if p.agent != nil {
			if r := p.refused(); r != "" {
				l.t.Logf("--- what %s refuses\n%s", p.Name, r)
			}
		}
	}
	if l.plane != nil && l.plane.process != nil {
		l.t.Logf("--- log of isthmusd\n%s", tail(l.plane.process.log, 40))
	}
	if keep := os.Getenv("NETLAB_KEEP"); keep != "" {
		l.keep(keep)
	}
}

// keep copies logs, objects and configuration dumps for a person to read.
func (l *Lab) keep(dir string) {
	to := filepath.Join(dir, strings.ReplaceAll(l.t.Name(), "/", "_"))
	_ = os.RemoveAll(to)
	for _, d := range []string{"logs", "config"} {
		_ = os.CopyFS(filepath.Join(to, d), os.DirFS(filepath.Join(l.dir, d)))
	}
	for _, p := range l.pods {
		if p.agent == nil {
			continue
		}
		if b, err := p.Admin("/config_dump?include_eds"); err == nil {
			_ = os.WriteFile(filepath.Join(to, p.Name+"-config.json"), b, 0o644)
		}
		if b, err := p.Admin("/stats"); err == nil {
			_ = os.WriteFile(filepath.Join(to, p.Name+"-stats.txt"), b, 0o644)
		}
		if b, err := l.plane.space.get("tcp", debugAddr, "/debug/configz?proxy="+p.Name+"."+p.Namespace); err == nil {
			_ = os.WriteFile(filepath.Join(to, p.Name+"-should-be.json"), b, 0o644)
		}
	}
	for _, what := range []string{"snapshotz", "syncz"} {
		if b, err := l.plane.space.get("tcp", debugAddr, "/debug/"+what); err == nil {
			_ = os.WriteFile(filepath.Join(to, what+".json"), b, 0o644)
		}
	}
	l.t.Logf("kept in %s", to)
}

func tail(file string, n int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Log is what the pod's proxy has said up to now, access log included.
func (p *Pod) Log() string {
	b, err := os.ReadFile(p.agent.log)
	p.lab.must(err)
	return string(b)
}

// AppLog is what the pod's application has said up to now: a line a request.
func (p *Pod) AppLog() string {
	b, err := os.ReadFile(p.app.log)
	p.lab.must(err)
	return string(b)
}

// WantLog waits until the proxy's log has a line with every one of these texts.
func (p *Pod) WantLog(texts ...string) {
	p.lab.t.Helper()
	p.WantLogs(1, texts...)
}

// WantLogs waits until the proxy's log has n such lines.
func (p *Pod) WantLogs(n int, texts ...string) {
	p.lab.t.Helper()
	if err := await(patience, func() error { return p.hasLogs(n, texts) }); err != nil {
		p.lab.t.Fatalf("log of %s: %v", p.Name, err)
	}
}

// HasLog is an error as long as the proxy's log has no line with all these texts.
func (p *Pod) HasLog(texts ...string) error { return p.hasLogs(1, texts) }

func (p *Pod) hasLogs(n int, texts []string) error {
	found := 0
	for line := range strings.Lines(p.Log()) {
		if containsAll(line, texts) {
			found++
		}
	}
	if found < n {
		return fmt.Errorf("%d lines with %q, want %d", found, texts, n)
	}
	return nil
}

// WantConnections waits until peers have n connections to the proxy's listeners.
func (p *Pod) WantConnections(n int) {
	p.lab.t.Helper()
	p.lab.must(await(patience, func() error {
		got, err := p.stats("^listener%5C.[0-9].*downstream_cx_active$")
		if err == nil && got < n {
			err = fmt.Errorf("%d connections, want %d", got, n)
		}
		return err
	}))
}

// WantDrained waits until no listener of the proxy's has connections that it wants
// to be rid of.
func (p *Pod) WantDrained() {
	p.lab.t.Helper()
	p.lab.must(await(patience, func() error {
		n, err := p.stats("^listener_manager.total_(listeners|filter_chains)_draining$")
		if err == nil && n > 0 {
			err = fmt.Errorf("%s drains %d listeners and filter chains", p.Name, n)
		}
		return err
	}))
}

// Stat is the sum of the proxy's counters and gauges whose names match.
func (p *Pod) Stat(pattern string) int {
	p.lab.t.Helper()
	n, err := p.stats(url.QueryEscape(pattern))
	p.lab.must(err)
	return n
}

// stats is the sum of these counters and gauges of the proxy's, workers' own aside.
func (p *Pod) stats(filter string) (int, error) {
	b, err := p.Admin("/stats?filter=" + filter)
	if err != nil {
		return 0, err
	}
	total := 0
	for line := range strings.Lines(string(b)) {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.Contains(name, ".worker_") {
			n, _ := strconv.Atoi(v)
			total += n
		}
	}
	return total, nil
}

func containsAll(s string, texts []string) bool {
	for _, t := range texts {
		if !strings.Contains(s, t) {
			return false
		}
	}
	return true
}

// Admin asks Envoy's admin interface.
func (p *Pod) Admin(path string) ([]byte, error) {
	if p.Proxy == Router {
		return p.space.get("unix", filepath.Join(p.root, "etc/istio/proxy/admin.sock"), path)
	}
	return p.space.get("tcp", "127.0.0.1:15000", path)
}

// get asks an HTTP server from inside the space. A status other than 200 is an error.
func (s *space) get(network, addr, path string) ([]byte, error) {
	var conn net.Conn
	// The connection is made by the thread of the space; the client's goroutines
	// are not in it.
	err := s.do(func() (err error) {
		conn, err = net.DialTimeout(network, addr, time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	res, err := (&http.Client{Transport: t, Timeout: 5 * time.Second}).Get("http://lab" + path)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, b)
	}
	return b, err
}

// refused are the resources that the proxy does not accept, and why.
func (p *Pod) refused() string {
	b, err := p.Admin("/config_dump")
	if err != nil {
		return err.Error()
	}
	var dump struct {
		Configs []map[string]any `json:"configs"`
	}
	if err := json.Unmarshal(b, &dump); err != nil {
		return err.Error()
	}
	var out strings.Builder
	for _, section := range dump.Configs {
		for key, list := range section {
			items, _ := list.([]any)
			for _, i := range items {
				m, _ := i.(map[string]any)
				if state, ok := m["error_state"].(map[string]any); ok {
					fmt.Fprintf(&out, "%s %v: %v\n", key, m["name"], state["details"])
				}
			}
		}
	}
	return out.String()
}
