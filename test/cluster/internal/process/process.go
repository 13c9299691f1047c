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
	id, err := identify(pid)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(id), 0o644); err != nil {
		return fmt.Errorf("remember process: %w", err)
	}
	return nil
}

// Recall returns the number of the process that the file tells of.
func Recall(file string) (int, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, ErrNotRunning
	}
	if err != nil {
		return 0, fmt.Errorf("recall process: %w", err)
	}
	number, _, _ := strings.Cut(string(b), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return 0, ErrNotRunning // whoever wrote this was killed over it
	}
	if id, err := identify(pid); err != nil || id != string(b) {
		return 0, ErrNotRunning
	}
	return pid, nil
}

// identify returns "PID STARTTIME", so that a number used again is not taken for
// the process, and an error if it is gone or only waits to be reaped.
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
	pid, err := Recall(file)
	if err != nil {
		return 0, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return 0, ErrNotRunning
	}
	if err != nil {
		return 0, fmt.Errorf("open process %d: %w", pid, err)
	}
	if _, err := Recall(file); err != nil { // the number may have changed hands before it was opened
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// Await returns when the process of the file has ended.
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
