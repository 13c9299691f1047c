// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/control"
)

// DNS is the name of the one program of the cluster that runs in pods. The kubelet
// starts it again.
const DNS = "coredns"

// do does what a command asks, to programs and to DNS.
func (n *node) do(r control.Request) error {
	if r.Name != DNS {
		return n.programs.Do(r) //nolint:wrapcheck // says all
	}
	killed, err := signalAll(DNS, r.Signal)
	if err == nil && killed == 0 {
		err = fmt.Errorf("%s does not run on %s", DNS, n.Host())
	}
	return err
}

// signalAll signals all processes of that name in the cell.
func signalAll(name string, s syscall.Signal) (n int, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	for _, f := range names {
		b, err := os.ReadFile(f)
		if err != nil || strings.TrimSpace(string(b)) != name { // err: it has just ended
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			return n, fmt.Errorf("list processes: %w", err)
		}
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return n, fmt.Errorf("signal %s: %w", name, err)
		}
		n++
	}
	return n, nil
}
