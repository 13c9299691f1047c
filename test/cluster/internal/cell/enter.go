// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cell

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// Run runs a command inside the running cell of that name and returns when it has
// ended. The command's paths are the host's, as far as the cell does not cover them.
func Run(c spec.Cluster, name string, cmd *exec.Cmd) error {
	pid, err := PID(c, name)
	if err != nil {
		return err
	}
	cmd.Env = append(environment(c), cmd.Env...)
	started := make(chan error)
	go func() {
		// Never unlocked: the thread has left the process's namespaces and is
		// destroyed with the goroutine.
		runtime.LockOSThread()
		started <- enterAndStart(pid, cmd)
	}()
	if err := <-started; err != nil {
		return err
	}
	return cmd.Wait() //nolint:wrapcheck // the caller wants the exit status
}

// Netns is the path from the host of the cell's network namespace.
func Netns(c spec.Cluster, name string) (string, error) {
	pid, err := PID(c, name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/ns/net", pid), nil
}

// ControlSocket is the path from the host of the socket of the cell's supervisor.
func ControlSocket(c spec.Cluster, name string) (string, error) {
	pid, err := PID(c, name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/root%s", pid, spec.ControlSocket), nil
}

func enterAndStart(pid int, cmd *exec.Cmd) error {
	root := "/proc/" + strconv.Itoa(pid)
	// All are opened before the first is entered, since /proc changes with the mounts.
	spaces := []struct {
		path string
		kind int
	}{{root + "/ns/net", unix.CLONE_NEWNET}, {root + "/ns/uts", unix.CLONE_NEWUTS}, {root + "/ns/pid", unix.CLONE_NEWPID}, {root + "/ns/mnt", unix.CLONE_NEWNS}}
	fds := make([]int, len(spaces))
	for i, s := range spaces {
		fd, err := unix.Open(s.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open namespace %s: %w", s.path, err)
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	// A thread that shares its working directory with others may not change mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if cmd.Dir == "" {
		if wd, err := os.Getwd(); err == nil {
			cmd.Dir = wd
		}
	}
	for i, s := range spaces {
		if err := unix.Setns(fds[i], s.kind); err != nil {
			return fmt.Errorf("enter namespace %s: %w", s.path, err)
		}
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s in the cell: %w", cmd.Path, err)
	}
	return nil
}

// ExitCode is the status with which to end after a command that Run ran.
func ExitCode(err error) (int, bool) {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), true
	}
	return 0, false
}
