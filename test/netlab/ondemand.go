// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// WantConfig waits until the proxy's configuration says something.
func (p *Pod) WantConfig(text string) {
	p.lab.t.Helper()
	p.lab.must(await(patience, func() error {
		b, err := p.Admin("/config_dump")
		if err == nil && !bytes.Contains(b, []byte(text)) {
			err = fmt.Errorf("the configuration of %s does not say %q", p.Name, text)
		}
		return err
	}))
}

// HasCluster tells whether the proxy has the cluster now.
func (p *Pod) HasCluster(name string) bool {
	p.lab.t.Helper()
	b, err := p.Admin("/clusters")
	p.lab.must(err)
	return bytes.Contains(append([]byte("\n"), b...), []byte("\n"+name+"::"))
}

// ProxyMemory is what Envoy holds of the machine's memory, in KiB.
func (p *Pod) ProxyMemory() int64 {
	p.lab.t.Helper()
	// Any of the agent's threads may be the parent.
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.agent.cmd.Process.Pid))
	p.lab.must(err)
	for _, list := range lists {
		b, err := os.ReadFile(list)
		child, _, _ := strings.Cut(string(b), " ")
		if err != nil || child == "" {
			continue // a thread that has ended, or has no children
		}
		n, err := resident("/proc/" + child + "/status")
		p.lab.must(err)
		return n
	}
	p.lab.t.Fatalf("netlab: the agent of %s has no Envoy", p.Name)
	return 0
}

// resident reads VmRSS, in KiB.
func resident(status string) (int64, error) {
	b, err := os.ReadFile(status)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s does not say VmRSS", status)
}
