// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// headless is the argument with which the test calls itself to be a process whose
// first thread has ended while others run.
const headless = "headless"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == headless {
		loseHead()
	}
	os.Exit(m.Run())
}

func init() { runtime.LockOSThread() } // main stays on the first thread

// loseHead ends the first thread, and the process when its input ends.
func loseHead() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_, _ = os.Stdout.WriteString("\n")
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

// TestEndingIsNotEnded: with its first thread gone a process looks like one that
// waits to be reaped, and still may write files.
func TestEndingIsNotEnded(t *testing.T) {
	t.Parallel()
	c := exec.CommandContext(t.Context(), os.Args[0], headless)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pid")
	if err := Remember(file, c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for _, err := Recall(file); err == nil; _, err = Recall(file) {
		runtime.Gosched() // until its first thread has ended
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Await(over, file); err == nil {
		t.Error("a process that runs on other threads is said to have ended")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	patient, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Await(patient, file); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	if err := Signal(file, unix.SIGTERM); !errors.Is(err, ErrNotRunning) {
		t.Errorf("signal to a process that is gone: %v", err)
	}
}
