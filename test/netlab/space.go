// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// space is a network namespace and a mount namespace, held by a thread of its
// own. Whatever is to happen inside is handed to that thread; processes started
// by it live inside as well, and die when it ends.
type space struct {
	jobs chan func()
	// fd refers to the network namespace.
	fd int
}

// newSpace makes a space; close ends it.
func newSpace() (*space, error) {
	s := &space{jobs: make(chan func())}
	made := make(chan error, 1)
	go s.run(made)
	if err := <-made; err != nil {
		return nil, err
	}
	return s, nil
}

func (s *space) run(made chan<- error) {
	runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
	if unix.Gettid() == unix.Getpid() {
		// The process's first thread does not end; leave it alone and take another.
		moved := make(chan struct{})
		go func() {
			defer close(moved)
			s.run(made)
		}()
		<-moved
		runtime.UnlockOSThread()
		return
	}
	err := s.enter()
	made <- err
	if err != nil {
		return
	}
	for f := range s.jobs {
		f()
	}
	_ = unix.Close(s.fd)
}

func (s *space) enter() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	var err error
	if s.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	// As in a container of Kubernetes: anybody may listen on port 80.
	return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0o600)
}

// do runs f inside and waits for it.
func (s *space) do(f func() error) error {
	done := make(chan error, 1)
	s.jobs <- func() { done <- f() }
	return <-done
}

// close ends the thread, and with it every process inside.
func (s *space) close() { close(s.jobs) }

// bind puts a file or directory in the place of another, for this space only.
func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}
