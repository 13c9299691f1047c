// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package cell makes and enters the namespaces that a cluster lives in: network,
// mounts, processes and host name of its own. The first process inside ends
// everything by ending; nothing of the cluster runs outside.
package cell

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// InitCommand and SuperviseCommand are the arguments with which the program
// calls itself: as the first process of the cell, and as its child.
const (
	InitCommand      = "cell-init"
	SuperviseCommand = "cell-supervise"
)

// The files that the first process and its child inherit.
const (
	APIListenerFD = 3 // listens on the host's 127.0.0.1 for the API server's clients
	ProgressFD    = 4 // a pipe to whoever started the cluster
)

const pidFile = "pid"

// ErrNotRunning says that there is no process in the cluster's directory's name.
var ErrNotRunning = errors.New("cluster is not running")

// Start makes a cell for the cluster and leaves it running on its own. files
// become the file descriptors from 3 on.
func Start(c spec.Cluster, files ...*os.File) error {
	log, err := os.OpenFile(c.Path("logs", "cell.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the cell's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", InitCommand, c.Dir)
	cmd.Dir = c.Dir
	cmd.Env = environment(c)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
		Setsid:     true,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the cell (are you root?): %w", err)
	}
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("start the cell: %w, see %s", err, log.Name())
	}
	if err := os.WriteFile(c.Path(pidFile), []byte(id), 0o644); err != nil {
		return fmt.Errorf("remember the cell's process: %w", err)
	}
	return nil
}

// environment is all that the cell's processes get: nothing of the caller's, in
// particular no proxy settings.
func environment(c spec.Cluster) []string {
	return []string{
		"PATH=" + c.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/run/home",
		"TMPDIR=/run/tmp",
		"KUBECACHEDIR=/run/home/.kube/cache",
	}
}

// PID returns the cell's first process as the caller sees it, or ErrNotRunning.
func PID(dir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, pidFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, ErrNotRunning
	}
	if err != nil {
		return 0, fmt.Errorf("read the cell's process: %w", err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(b) + " x")[0])
	if err != nil {
		return 0, fmt.Errorf("read the cell's process: %w", err)
	}
	if id, err := identify(pid); err != nil || id != string(b) {
		return 0, ErrNotRunning
	}
	return pid, nil
}

// identify returns "PID STARTTIME", so that a number used again is not taken for
// the cell, and an error if the process is gone or only waits to be reaped.
func identify(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("look at process %d: %w", pid, err)
	}
	// The name in parentheses may contain anything; after it come state (3rd
	// field) … start time (22nd).
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fmt.Sprintf("%d %s", pid, f[19]), nil
}

// Kill ends the cell and everything inside and waits until the kernel is through.
func Kill(ctx context.Context, dir string) error {
	pid, err := PID(dir)
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if _, err := PID(dir); err != nil { // the number may have changed hands before it was opened
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", pid, err)
		}
		if n > 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("process %d does not end: %w", pid, err)
		}
	}
}

// Running reports whether the cluster in dir runs.
func Running(dir string) bool {
	_, err := PID(dir)
	return err == nil
}
