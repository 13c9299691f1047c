// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package proxy runs Envoy: its command line, its life as a process, its admin
// interface, and how it is drained.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Command says how to start Envoy.
type Command struct {
	// Path of the program, Dir to start it in, Bootstrap to start it with.
	Path, Dir, Bootstrap string
	// Concurrency is the number of workers; 0 means one per processor.
	Concurrency int
	// DrainTime is how long listeners that isthmusd removes or changes keep their
	// connections, and by when a graceful drain has ended every one; 45 s unless given.
	DrainTime time.Duration
	// LogLevel and ComponentLogLevel as Envoy takes them; "" is warning and none.
	LogLevel, ComponentLogLevel string
	// Env is the whole environment, as key=value.
	Env            []string
	Stdout, Stderr io.Writer
}

const usualDrainTime = 45 * time.Second

// Args are the arguments. Envoy runs alone in its pod, so hot restart with its
// shared memory is off; access logs reach the container's log within 0.1 s.
func (c Command) Args() []string {
	level := c.LogLevel
	if level == "" {
		level = "warning"
	}
	args := []string{
		"-c", c.Bootstrap,
		"--disable-hot-restart",
		"--drain-time-s", strconv.Itoa(int(cmp.Or(c.DrainTime, usualDrainTime) / time.Second)),
		"--drain-strategy", "immediate",
		"--file-flush-interval-msec", "100",
		"--allow-unknown-static-fields",
		"--skip-deprecated-logs",
		"-l", level,
	}
	if c.ComponentLogLevel != "" {
		args = append(args, "--component-log-level", c.ComponentLogLevel)
	}
	if c.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(c.Concurrency))
	}
	return args
}

// ExitError says that Envoy ended by itself and how.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("envoy ended by itself with code %d", e.Code) }

// Process is a running Envoy.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts Envoy. The caller must call Stop, or wait for Done.
func Start(c Command) (*Process, error) {
	cmd := exec.Command(c.Path, c.Args()...) //nolint:gosec,noctx // the path is the operator's; Stop ends it
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.Dir, c.Env, c.Stdout, c.Stderr
	// Without its agent a proxy would go on with a certificate that nobody renews.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// Done is closed when Envoy has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how Envoy ended, after Done: an ExitError always, for a proxy that ends
// without having been asked is a failure even if it calls it success.
func (p *Process) Err() error {
	<-p.done
	code := 0
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		code = exit.ExitCode()
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			code = 128 + int(s.Signal())
		}
	}
	return &ExitError{Code: code}
}

// Stop asks Envoy to end, and makes it when ctx ends first.
func (p *Process) Stop(ctx context.Context) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}
