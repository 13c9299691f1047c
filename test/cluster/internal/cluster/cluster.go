// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package cluster is what the command does from the host: bring a cluster up,
// take it down, look at it.
package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/keeper"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/node"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/process"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/sweep"
)

// ErrNotRunning says that there is no cluster of that name, or not any more.
var ErrNotRunning = errors.New("cluster is not running")

// Running reports whether the cluster in dir runs.
func Running(dir string) bool {
	_, err := process.Recall(filepath.Join(dir, keeper.PIDFile))
	return err == nil
}

// Up brings the cluster up and returns when it is ready. A cluster of that name that
// runs already is left as it is. If the context ends before the cluster is ready, so
// does the cluster. In the foreground Up returns when the cluster ends, and ends it
// with the context.
func Up(ctx context.Context, o keeper.Order, progress io.Writer) error {
	c := &o.Cluster
	if err := errors.Join(prerequisites(), c.Validate()); err != nil {
		return err
	}
	start := time.Now()
	unlock, err := lock(filepath.Dir(c.Dir))
	if err != nil {
		return err
	}
	defer unlock()
	if Running(c.Dir) {
		fmt.Fprintf(progress, "cluster %s is running already\n", c.Name)
		unlock()
		return awaitReady(ctx, c.Dir)
	}
	if err := sweep.All(ctx, c.Dir); err != nil { // what a crash left
		return err //nolint:wrapcheck // says all
	}
	said, lifeline, err := order(&o)
	if err != nil {
		return err
	}
	defer said.Close()
	defer lifeline.Close()
	stop := context.AfterFunc(ctx, func() { lifeline.Close() })
	defer stop()
	err = follow(*c, said, func(text string) {
		unlock() // who comes now finds the keeper
		fmt.Fprintf(progress, "%5.1f s  %s\n", time.Since(start).Seconds(), text)
	})
	if o.Foreground && err == nil {
		_, _ = io.Copy(io.Discard, said) // returns when the keeper has ended
		err = fmt.Errorf("it ended by itself; see %s", c.Path("logs"))
	}
	if ctx.Err() == nil {
		return err
	}
	unlock()
	if err := Down(context.WithoutCancel(ctx), c.Dir); err != nil {
		return err
	}
	if o.Foreground {
		return nil
	}
	return fmt.Errorf("interrupted; nothing of cluster %s is left", c.Name)
}

// order starts a keeper. said is what it has to say; it ends with lifeline until
// the cluster is ready.
func order(o *keeper.Order) (said, lifeline *os.File, err error) {
	listener, err := listen(&o.Cluster)
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	port, err := listener.File()
	if err != nil {
		return nil, nil, fmt.Errorf("hand over the API server's port: %w", err)
	}
	defer port.Close()
	stdin, lifeline, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	defer stdin.Close()
	said, w, err := os.Pipe()
	if err != nil {
		lifeline.Close()
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	defer w.Close()
	cmd := exec.Command("/proc/self/exe", keeper.Command)
	cmd.Dir, cmd.Stdin, cmd.Env = "/", stdin, []string{"PATH=" + os.Getenv("PATH")}
	cmd.ExtraFiles = []*os.File{w, port}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err = cmd.Start(); err == nil {
		err = json.NewEncoder(lifeline).Encode(o)
	}
	if err != nil {
		said.Close()
		lifeline.Close()
		return nil, nil, fmt.Errorf("start the keeper: %w", err)
	}
	return said, lifeline, nil
}

// prerequisites says what the machine lacks, all at once.
func prerequisites() error {
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("a cluster needs root: it makes namespaces, mounts and cgroups"))
	}
	for program, pkg := range map[string]string{"runc": "runc", "nft": "nftables"} {
		if _, err := exec.LookPath(program); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing: install package %s", program, pkg))
		}
	}
	plugins := []string{"/usr/lib/cni/ptp", "/opt/cni/bin/ptp"}
	if !slices.ContainsFunc(plugins, func(p string) bool { _, err := os.Stat(p); return err == nil }) {
		errs = append(errs, errors.New("the CNI plugins are missing: install package containernetworking-plugins"))
	}
	return errors.Join(errs...)
}

// lock keeps other processes from starting and ending clusters below dir. The
// lock is on the directory itself, so that there is no file to leave behind.
func lock(dir string) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make directory of clusters: %w", err)
		}
		f, err := os.Open(dir)
		if err != nil {
			return nil, fmt.Errorf("open directory of clusters: %w", err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		locked, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("look at %s: %w", dir, err)
		}
		if now, err := os.Stat(dir); err == nil && os.SameFile(locked, now) {
			return func() { f.Close() }, nil
		}
		f.Close() // it went with its last cluster while this waited
	}
}

// awaitReady waits for a cluster that someone else has started.
func awaitReady(ctx context.Context, dir string) error {
	for Running(dir) {
		c, err := spec.Load(dir)
		if err == nil {
			ready := 0
			for _, name := range c.Cells() {
				s, err := supervise.Read(c.CellPath(name))
				if err == nil && s.Failure != "" {
					return fmt.Errorf("%s is not ready, take the cluster down first: %s", name, s.Failure)
				}
				if err == nil && s.Ready {
					ready++
				}
			}
			if ready == len(c.Cells()) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until it is ready: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	return ErrNotRunning
}

// listen picks the port, the wanted one or else any free one: clusters in other
// directories know nothing of each other.
func listen(c *spec.Cluster) (*net.TCPListener, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.APIPort))
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the API server's clients: %w", err)
	}
	t, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("listen for the API server's clients: got a %T", l)
	}
	if a, ok := t.Addr().(*net.TCPAddr); ok {
		c.APIPort = a.Port
	}
	return t, nil
}

// follow passes progress on until the cluster is ready or cannot be.
func follow(c spec.Cluster, said io.Reader, progress func(string)) error {
	for lines := bufio.NewScanner(said); lines.Scan(); {
		kind, text, _ := strings.Cut(lines.Text(), " ")
		switch kind + " " {
		case node.Ready:
			progress("ready")
			return nil
		case node.Failed:
			return fmt.Errorf("cluster %s is not ready: %s; logs are in %s", c.Name, text, c.Path("logs"))
		default:
			progress(text)
		}
	}
	return fmt.Errorf("the keeper of cluster %s has ended; see %s", c.Name, c.Path("logs", "keeper.log"))
}

// Down ends the cluster in dir and removes everything of it. It is no error if
// there is none.
func Down(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := lock(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer unlock()
	file := filepath.Join(dir, keeper.PIDFile)
	if err := process.Signal(file, syscall.SIGTERM); err != nil && !errors.Is(err, process.ErrNotRunning) {
		return fmt.Errorf("end the keeper: %w", err)
	}
	ending, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := process.Await(ending, file); err != nil {
		return fmt.Errorf("end the keeper: %w", err)
	}
	if err := sweep.All(ctx, dir); err != nil {
		return err //nolint:wrapcheck // says all
	}
	sweep.RemoveParent(dir)
	return nil
}

// Access returns the kubeconfig that Up wrote for the cluster in dir.
func Access(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, sweep.AccessFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", ErrNotRunning
	}
	if err != nil {
		return "", fmt.Errorf("find the kubeconfig: %w", err)
	}
	return string(b), nil
}
