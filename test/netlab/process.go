// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Users of a pod, as in Kubernetes: the proxy's is the one that is not redirected.
const (
	uidProxy = 1337
	uidApp   = 1000
	uidRoot  = 0
)

// program is something to run in a space.
type program struct {
	name string // of the log file
	args []string
	env  []string
	uid  uint32
	dir  string
}

// process is a program that runs, and writes to a log.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

func (p program) command(ctx context.Context) *exec.Cmd {
	c := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	c.Dir, c.Env = p.dir, append([]string{"PATH=/usr/bin:/bin"}, p.env...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: p.uid, Gid: p.uid}}
	return c
}

// start runs the program until stop is called or the space ends.
func start(s *space, p program, logs string) (*process, error) {
	out := &process{name: p.name, log: filepath.Join(logs, p.name+".log"), done: make(chan struct{})}
	f, err := os.OpenFile(out.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Envoy opens /dev/stdout anew for its access log.
	if err := f.Chown(int(p.uid), int(p.uid)); err != nil {
		return nil, err
	}
	out.cmd = p.command(context.Background())
	out.cmd.Stdout, out.cmd.Stderr = f, f
	if err := s.do(out.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		defer close(out.done)
		out.err = out.cmd.Wait()
	}()
	return out, nil
}

// stop asks the process to end, and makes it after the grace period.
func (p *process) stop(grace time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.done:
		return p.err
	case <-t.C:
		p.kill()
		return fmt.Errorf("%s did not end within %s", p.name, grace)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends the process as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// run runs the program to its end and returns what it said on its output; what it
// said besides is part of the error.
func run(ctx context.Context, s *space, p program) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	c := p.command(ctx)
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := s.do(c.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	if err := c.Wait(); err != nil {
		return stdout.Bytes(), fmt.Errorf("%s: %w: %s", p.name, err, stderr.String())
	}
	return stdout.Bytes(), nil
}
