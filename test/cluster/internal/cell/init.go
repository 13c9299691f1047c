// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cell

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// Init is the first process of the cell: it arranges the mounts, starts the
// supervisor and reaps what shims and others leave behind. It returns when the
// supervisor has ended, and with it everything.
func Init(c spec.Cluster, name string) error {
	if err := mounts(c, name); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", SuperviseCommand, c.Dir, name)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(ProgressFD, "progress")}
	if name == c.Machines()[0].Host() {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(APIListenerFD, "api"))
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	// exec.Cmd.Wait would compete with this loop for the supervisor's end.
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reap: %w", err)
		}
		if pid == cmd.Process.Pid {
			return fmt.Errorf("the supervisor ended: %v", describe(status))
		}
	}
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return s.Signal().String()
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}

// mount is one call of mount(2).
type mount struct {
	source, target, kind string
	flags                uintptr
}

// mounts gives the cell its own view: run-time state in memory, the kubelet's and
// the container runtime's directories below the cluster's own, and /proc and /sys
// of the new namespaces. What is mounted inside is not seen outside, while pods'
// mounts are shared among the cell's own mount namespaces.
func mounts(c spec.Cluster, name string) error {
	cgroups := c.CellPath(name, "cg")
	steps := []mount{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"", "/", "", unix.MS_REC | unix.MS_SHARED},
		{"tmpfs", "/run", "tmpfs", 0}, // first, or mount helpers would write to the host's /run/mount
		{"proc", "/proc", "proc", 0},
		// A new sysfs shows the new network namespace; the cgroup hierarchies are
		// kept aside meanwhile.
		{"/sys/fs/cgroup", cgroups, "", unix.MS_BIND | unix.MS_REC},
		{"sysfs", "/sys", "sysfs", 0},
		{cgroups, "/sys/fs/cgroup", "", unix.MS_BIND | unix.MS_REC},
		{c.CellPath(name, "var", "lib"), "/var/lib", "", unix.MS_BIND},
		{c.CellPath(name, "var", "log"), "/var/log", "", unix.MS_BIND},
		{c.Path("resolv.conf"), "/etc/resolv.conf", "", unix.MS_BIND},
	}
	for _, m := range steps {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %q on %s: %w", m.source, m.target, err)
		}
	}
	for _, d := range []string{"/run/netns", "/run/lock", "/run/home", "/run/tmp"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make run-time directory: %w", err)
		}
	}
	return nil
}
