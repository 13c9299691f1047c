// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package process knows processes by file: one writes down which process it is,
// others find, signal and await it, and never take another for it that got its
// number later.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNotRunning says that the process of a file, if there ever was one, has ended.
var ErrNotRunning = errors.New("not running")

// Remember writes down which process has that number now.
func Remember(file string, pid int) error {
	p, err := look(pid)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(p.id), 0o644); err != nil {
		return fmt.Errorf("remember process: %w", err)
	}
	return nil
}

// Recall returns the number of the process that the file tells of.
func Recall(file string) (int, error) {
	p, err := recall(file)
	if err != nil {
		return 0, err
	}
	if p.ending {
		return 0, ErrNotRunning
	}
	return p.pid, nil
}

// recall finds the process also while it ends.
func recall(file string) (seen, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return seen{}, ErrNotRunning
	}
	if err != nil {
		return seen{}, fmt.Errorf("recall process: %w", err)
	}
	number, _, _ := strings.Cut(string(b), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return seen{}, ErrNotRunning // whoever wrote this was killed over it
	}
	p, err := look(pid)
	if err != nil || p.id != string(b) {
		return seen{}, ErrNotRunning
	}
	return p, nil
}

// seen is a process as it is now.
type seen struct {
	pid int
	// id is "PID STARTTIME", so that a number used again is not taken for the process.
	id string
	// ending is true once its first thread has ended. Others may still run, and
	// with the first process of a PID namespace all that is in there.
	ending bool
}

// look fails if the process is gone.
func look(pid int) (seen, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return seen{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// The name in parentheses may contain anything; after it come state (3rd
	// field) … start time (22nd).
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 20 {
		return seen{}, fmt.Errorf("process %d has ended", pid)
	}
	return seen{pid: pid, id: fmt.Sprintf("%d %s", pid, f[19]), ending: f[0] == "Z" || f[0] == "X"}, nil
}

// Signal sends the process of the file a signal.
func Signal(file string, s syscall.Signal) error {
	fd, err := open(file)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send signal: %w", err)
	}
	return nil
}

// open returns a file descriptor that is of this process and of no later one.
func open(file string) (int, error) {
	p, err := recall(file)
	if err != nil {
		return 0, err
	}
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return 0, ErrNotRunning
	}
	if err != nil {
		return 0, fmt.Errorf("open process %d: %w", p.pid, err)
	}
	if _, err := recall(file); err != nil { // the number may have changed hands before it was opened
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// Await returns when the process of the file has ended, with all its threads: a
// file descriptor of a process is readable only then (pidfd_open(2)).
func Await(ctx context.Context, file string) error {
	fd, err := open(file)
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100) //nolint:gosec // a file descriptor
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the process of %s: %w", file, err)
		}
		if n > 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the process of %s does not end: %w", file, err)
		}
	}
}
