// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package acceptance

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestNothingIsLeft ends clusters in all the ways that people and kernels do, and
// compares the machine before with the machine after.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	devcluster, testapp := build(t)
	cases := map[string]struct {
		up     []string // more arguments
		when   string   // the line of progress at which it is ended
		whom   string   // a part of the command line of the process that gets the signal
		signal syscall.Signal
		// crash is whether this is the cluster's fault, which its logs are kept to tell.
		crash bool
		down  bool // the cluster is taken down
	}{
		"interrupted while it starts": {
			when: "containerd answers", whom: " up ", signal: syscall.SIGINT,
		},
		"interrupted when it is up": {
			up: []string{"--foreground", "--nodes", "2"}, when: "ready", whom: " up ", signal: syscall.SIGINT,
		},
		"whoever started it is killed while it starts": {
			when: "API server is ready", whom: " up ", signal: syscall.SIGKILL,
		},
		"its keeper is killed when it is up": {
			when: "ready", whom: "exe keep", signal: syscall.SIGKILL, crash: true,
		},
		"its keeper is killed while it starts": {
			when: "certificates and configuration written", whom: "exe keep", signal: syscall.SIGKILL, crash: true,
		},
		"a supervisor panics": {
			when: "containerd answers", whom: "cell-supervise", signal: syscall.SIGABRT, crash: true,
		},
		"a cell's first process is killed": {
			when: "containerd answers", whom: "cell-init", signal: syscall.SIGKILL, crash: true,
		},
		"its sweeper is killed": {
			up: []string{"--foreground"}, when: "containerd answers", whom: " sweep ", signal: syscall.SIGKILL, down: true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, devcluster, testapp)
			access := filepath.Join(filepath.Dir(m.dir), "kubeconfig")
			before := m.remains()
			up := m.command(devcluster, m.cluster("up", append([]string{"--testapp", testapp, "--kubeconfig", access}, c.up...)...)...)
			m.follow(up, c.when)
			m.signal(c.whom, c.signal)
			if c.down {
				m.must(devcluster, m.cluster("down")...)
			}
			_ = up.Wait() // it may have ended long before, or been killed
			if c.crash {
				logs := filepath.Join(m.dir, "m", "logs")
				m.becomes(before, logs)
				if _, err := os.Stat(filepath.Join(logs, "keeper.log")); err != nil {
					t.Errorf("of a crash there is no log: %v", err)
				}
				m.must(devcluster, m.cluster("down")...)
			}
			m.becomes(before, "")
		})
	}
}
