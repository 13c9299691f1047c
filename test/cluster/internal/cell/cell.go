// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package cell makes and enters the namespaces that a node lives in, or everything
// outside: network, mounts, processes and host name of its own. The first process
// inside ends everything by ending; nothing of the cluster runs outside of cells but
// the keeper, which starts them and whose end is theirs too.
package cell

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/process"
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
	ProgressFD    = 3 // a pipe to whoever started the cell
	APIListenerFD = 4 // listens on the host's 127.0.0.1 for the API server's clients; the control plane's cell only
)

// Cell is one that runs.
type Cell struct {
	Name  string
	Ended <-chan struct{} // closed when nothing of it runs any more
	first *os.Process
}

// Start makes a cell in the network namespace. files become the file descriptors
// from 3 on. The cell ends with the calling process, whatever way that ends.
func Start(c spec.Cluster, name string, netns *os.File, files ...*os.File) (*Cell, error) {
	log, err := os.OpenFile(filepath.Join(c.LogDir(name), "cell.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the cell's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", InitCommand, c.Dir, name)
	cmd.Dir = c.Dir
	cmd.Env = environment(c)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS,
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// Never unlocked: the thread has left the process's network namespace. It
		// has to last as long as the cell, to which its end would be its parent's.
		runtime.LockOSThread()
		err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the cell (are you root?): %w", err)
	}
	if err := process.Remember(c.PIDFile(name), cmd.Process.Pid); err != nil {
		return nil, fmt.Errorf("start the cell: %w, see %s", err, log.Name())
	}
	return &Cell{Name: name, Ended: ended, first: cmd.Process}, nil
}

// Kill ends the cell as a power failure would end a machine, and waits until the
// kernel is through.
func (c *Cell) Kill() {
	_ = c.first.Kill() // fails if it has ended
	<-c.Ended
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

// PID returns the cell's first process as the caller sees it, or
// process.ErrNotRunning.
func PID(c spec.Cluster, name string) (int, error) {
	pid, err := process.Recall(c.PIDFile(name))
	if err != nil {
		return 0, fmt.Errorf("cell %s: %w", name, err)
	}
	return pid, nil
}
