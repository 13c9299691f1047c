// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program under measurement.
type Process struct {
	cmd   *exec.Cmd
	log   *os.File
	ended chan struct{}
	err   error
}

// Start runs a program; what it prints goes into a file.
func Start(log string, env []string, program string, args ...string) (*Process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", program, err)
	}
	c := exec.Command(program, args...)
	c.Stdout, c.Stderr = f, f
	c.Env = append(os.Environ(), env...)
	// It must not outlive us, however we end.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		f.Close()
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	p := &Process{cmd: c, log: f, ended: make(chan struct{})}
	go func() {
		p.err = c.Wait()
		f.Close()
		close(p.ended)
	}()
	return p, nil
}

// stopTime is what a program gets to end by itself.
const stopTime = 10 * time.Second

// Stop ends the program: by its own will, or by force.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(stopTime):
		p.Kill()
	}
}

// Kill ends the program at once.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// PID of the program.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Until waits for a condition, which is asked again and again.
func (p *Process) Until(ctx context.Context, what string, holds func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("wait for %s: the program has ended (%w); see %s", what, errors.Join(p.err), p.log.Name())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
	return nil
}

// Use is what a process takes of the machine.
type Use struct {
	// At is when this was read.
	At time.Time `json:"-"`
	// CPU seconds since the start.
	CPU float64 `json:"cpu_s"`
	// RSS now, at most since the last Reset, and of it what no other process could
	// share, in MiB: memory that was written to.
	RSS     float64 `json:"rss_mib"`
	Peak    float64 `json:"peak_mib"`
	Private float64 `json:"private_mib"`
}

// UseOf reads what a process takes.
func UseOf(pid int) (Use, error) {
	u := Use{At: time.Now()}
	var t unix.Timespec
	// The kernel has a CPU clock for every process: 2 says that it counts by the
	// scheduler, to the nanosecond.
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		return u, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	u.CPU = float64(t.Nano()) / 1e9
	status, err := kilobytes(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	u.RSS, u.Peak = status["VmRSS"]/1024, status["VmHWM"]/1024
	maps, err := kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return u, err
	}
	u.Private = maps["Private_Dirty"] / 1024
	return u, nil
}

// kilobytes reads the lines "Name: 1 kB" of a file.
func kilobytes(path string) (map[string]float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		name, rest, _ := strings.Cut(s.Text(), ":")
		if f := strings.Fields(rest); len(f) == 2 && f[1] == "kB" {
			if v, err := strconv.ParseFloat(f[0], 64); err == nil {
				out[name] = v
			}
		}
	}
	return out, nil
}

// ResetPeak makes the peak what is resident now.
func ResetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}
