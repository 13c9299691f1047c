// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package cluster is what the command does from the host: bring a cluster up,
// take it down, look at it.
package cluster

import (
	"bufio"
	"context"
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

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/config"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/node"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/outside"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
)

// accessFile in the cluster's directory says where its kubeconfig was written.
const accessFile = "kubeconfig-path"

// Up brings the cluster up and returns when it is ready. It writes a kubeconfig
// to access. A cluster of that name that runs already is left as it is.
func Up(c spec.Cluster, access string, progress io.Writer) error {
	if err := errors.Join(prerequisites(), c.Validate()); err != nil {
		return err
	}
	unlock, err := lock(filepath.Dir(c.Dir))
	if err != nil {
		return err
	}
	defer unlock()
	if cell.Running(c.Dir) {
		fmt.Fprintf(progress, "cluster %s is running already\n", c.Name)
		unlock()
		return awaitReady(c.Dir)
	}
	if err := remove(context.Background(), c.Dir); err != nil { // what a crash left
		return err
	}
	listener, err := listen(&c)
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := prepare(c, access); err != nil {
		return err
	}
	port, err := listener.File()
	if err != nil {
		return fmt.Errorf("hand over the API server's port: %w", err)
	}
	defer port.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer r.Close()
	err = cell.Start(c, port, w)
	w.Close()
	if err != nil {
		return err
	}
	unlock()
	return follow(c, r, progress)
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
	return func() { f.Close() }, nil
}

// awaitReady waits for a cluster that someone else has started.
func awaitReady(dir string) error {
	for cell.Running(dir) {
		switch s, err := supervise.Read(dir); {
		case err == nil && s.Ready:
			return nil
		case err == nil && s.Failure != "":
			return fmt.Errorf("it is not ready, take it down first: %s", s.Failure)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return cell.ErrNotRunning
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

func prepare(c spec.Cluster, access string) error {
	if err := makeCgroups(c.Cgroup()); err != nil {
		return err
	}
	if err := config.Write(c, access); err != nil {
		return err
	}
	if err := outside.Prepare(c); err != nil {
		return err //nolint:wrapcheck // says all
	}
	if err := os.WriteFile(c.Path(accessFile), []byte(access), 0o644); err != nil {
		return fmt.Errorf("remember the kubeconfig: %w", err)
	}
	return c.Save()
}

// follow passes the supervisor's progress on until the cluster is ready or
// cannot be.
func follow(c spec.Cluster, r io.Reader, progress io.Writer) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, node.Ready):
			return nil
		case strings.HasPrefix(line, node.Failed):
			return fmt.Errorf("cluster %s is not ready: %s; logs are in %s", c.Name, strings.TrimPrefix(line, node.Failed), c.Path("logs"))
		default:
			fmt.Fprintln(progress, strings.TrimPrefix(line, node.Step))
		}
	}
	return fmt.Errorf("the supervisor of cluster %s ended; see %s", c.Name, c.Path("logs", "cell.log"))
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
	return remove(ctx, dir)
}

func remove(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := cell.Kill(ctx, dir); err != nil {
		return err
	}
	c, err := spec.Load(dir)
	switch {
	case errors.Is(err, os.ErrNotExist): // never got so far
	case err != nil:
		return err
	default:
		if err := removeCgroups(ctx, c.Cgroup()); err != nil {
			return err
		}
	}
	if access, err := os.ReadFile(filepath.Join(dir, accessFile)); err == nil {
		if err := os.Remove(string(access)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove kubeconfig: %w", err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the cluster's files: %w", err)
	}
	return nil
}

// Access returns the kubeconfig that Up wrote for the cluster in dir.
func Access(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, accessFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", cell.ErrNotRunning
	}
	if err != nil {
		return "", fmt.Errorf("find the kubeconfig: %w", err)
	}
	return string(b), nil
}
