// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package binaries builds the programs that a cluster consists of, once, into a
// directory named by everything that decides their content.
package binaries

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/image"
)

const (
	version = "v1.36.3"
	date    = "2026-01-01T00:00:00Z"
)

// program is a main package of the module and the name of its binary.
type program struct{ pkg, name string }

// set is what is built together, into a directory of its own.
type set struct {
	about    string
	programs []program // in the order in which they are built
	imports  []string  // packages of the module that the programs import
	finish   func(dir string) error
}

// cluster is all that every cluster consists of: quick programs first, so that a
// mistake shows before the minutes that Kubernetes takes.
func cluster() set {
	return set{
		about: "the cluster's binaries",
		programs: []program{
			{"./pause", "pause"},
			{"./policygate", "policygate"},
			{"./etcd", "etcd"},
			{"./coredns", "coredns"},
			{"./containerd", "containerd"},
			{"./shim", "containerd-shim-runc-v2"},
			{"./ctr", "ctr"},
			{"./hyperkube", "hyperkube"},
		},
		imports: []string{"internal/gate", "internal/image"},
		finish: func(dir string) error {
			if err := link(dir); err != nil {
				return err
			}
			return archive(dir)
		},
	}
}

// The programs of Suite.
const (
	Conformance = "conformance"
	Agnhost     = "agnhost"
)

func suite() set {
	return set{
		about: "Kubernetes' own test suite",
		programs: []program{
			{"k8s.io/kubernetes/test/images/agnhost", Agnhost},
			{"./conformance", Conformance},
		},
		imports: []string{"internal/verdict"},
		finish:  func(string) error { return nil },
	}
}

// components are the names by which hyperkube is called.
func components() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}
}

// Options say where the module is, where the binaries go and who hears about it.
type Options struct {
	Source   string    // directory of the module
	Cache    string    // parent of the directory that Build returns
	Progress io.Writer // a line per step, and every ten seconds of a long one
}

// Build returns the directory that holds the cluster's binaries, building those
// that are not there yet. It is safe to call from several processes at once: one
// builds, the others wait.
func Build(ctx context.Context, o Options) (string, error) { return build(ctx, o, cluster()) }

// Suite is like Build for the programs that test a cluster.
func Suite(ctx context.Context, o Options) (string, error) { return build(ctx, o, suite()) }

func build(ctx context.Context, o Options, s set) (string, error) {
	key, err := fingerprint(o.Source, s)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(o.Cache, key)
	done := filepath.Join(dir, ".complete")
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	fmt.Fprintf(o.Progress, "building %s into %s (8 minutes on two cores if nothing is cached)\n", s.about, dir)
	for i, p := range s.programs {
		if err := compile(ctx, o, p, filepath.Join(dir, p.name), fmt.Sprintf("[%d/%d] %s", i+1, len(s.programs), p.name)); err != nil {
			return "", err
		}
	}
	if err := s.finish(dir); err != nil {
		return "", err
	}
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		return "", fmt.Errorf("mark binaries complete: %w", err)
	}
	return dir, nil
}

// Assets is the directory below Build's that envtest takes as KUBEBUILDER_ASSETS.
func Assets(dir string) string { return filepath.Join(dir, "assets") }

// archive makes the images that every cluster needs.
func archive(dir string) error {
	for _, name := range []string{"pause", "coredns"} {
		err := image.Write(filepath.Join(dir, "images", name+".tar"), image.Image{
			Tags:   []string{"local/" + name + ":1"},
			Files:  []image.File{{Path: name, Source: filepath.Join(dir, name)}},
			Config: v1.Config{Entrypoint: []string{"/" + name}},
		})
		if err != nil {
			return fmt.Errorf("make image %s: %w", name, err)
		}
	}
	return nil
}

func link(dir string) error {
	if err := os.MkdirAll(Assets(dir), 0o755); err != nil {
		return fmt.Errorf("make assets directory: %w", err)
	}
	links := map[string]string{
		"assets/kube-apiserver": "../hyperkube",
		"assets/kubectl":        "../hyperkube",
		"assets/etcd":           "../etcd",
	}
	for _, c := range components() {
		links[c] = "hyperkube"
	}
	for name, target := range links {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("replace link: %w", err)
		}
		if err := os.Symlink(target, path); err != nil {
			return fmt.Errorf("link component: %w", err)
		}
	}
	return nil
}

// sources are the packages of the module whose content decides the binaries.
func (s set) sources() []string {
	dirs := slices.Clone(s.imports)
	for _, p := range s.programs {
		if strings.HasPrefix(p.pkg, "./") {
			dirs = append(dirs, p.pkg)
		}
	}
	return dirs
}

// fingerprint hashes what decides the binaries: the module's requirements, the
// packages in them and the linker's flags.
func fingerprint(source string, s set) (string, error) {
	h := sha256.New()
	files := []string{"go.mod", "go.sum"}
	for _, dir := range s.sources() {
		m, err := filepath.Glob(filepath.Join(source, dir, "*.go"))
		if err != nil {
			return "", fmt.Errorf("list sources: %w", err)
		}
		for _, f := range m {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			rel, err := filepath.Rel(source, f)
			if err != nil {
				return "", fmt.Errorf("list sources: %w", err)
			}
			files = append(files, rel)
		}
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(source, f))
		if err != nil {
			return "", fmt.Errorf("fingerprint the binaries: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n", f, len(b))
		h.Write(b)
	}
	fmt.Fprintln(h, ldflags())
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// ldflags stamp Kubernetes' version, without which it calls itself
// v0.0.0-master and clients refuse what they think it cannot do.
func ldflags() string {
	f := []string{"-s", "-w"}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, kv := range []string{"gitVersion=" + version, "gitMajor=1", "gitMinor=36", "gitTreeState=clean", "gitCommit=devcluster", "buildDate=" + date} {
			f = append(f, "-X", pkg+"."+kv)
		}
	}
	return strings.Join(f, " ")
}

func compile(ctx context.Context, o Options, p program, out, title string) error {
	start := time.Now()
	fmt.Fprintf(o.Progress, "%s …\n", title)
	// Not -trimpath: it saves little and would compile everything again that a
	// plain build has in the cache.
	c := exec.CommandContext(ctx, "go", "build", "-v", "-ldflags", ldflags(), "-o", out, p.pkg)
	c.Dir = o.Source
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	var said tally
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		return fmt.Errorf("start go: %w", err)
	}
	finished := make(chan struct{})
	quiet := make(chan struct{})
	go func() {
		defer close(quiet)
		every := time.NewTicker(10 * time.Second)
		defer every.Stop()
		for {
			select {
			case <-finished:
				return
			case <-every.C:
				fmt.Fprintf(o.Progress, "%s: %s, %d packages compiled\n", title, time.Since(start).Round(time.Second), said.lines.Load())
			}
		}
	}()
	err := c.Wait()
	close(finished)
	<-quiet
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", p.pkg, err, said.tail())
	}
	fmt.Fprintf(o.Progress, "%s: done in %s\n", title, time.Since(start).Round(100*time.Millisecond))
	return nil
}

// tally counts lines, which with -v are compiled packages, and keeps the text
// for the case of an error.
type tally struct {
	lines atomic.Int64
	text  bytes.Buffer // written by one goroutine of exec.Cmd, read after Wait
}

// Write never fails.
func (t *tally) Write(b []byte) (int, error) {
	t.lines.Add(int64(bytes.Count(b, []byte("\n"))))
	return t.text.Write(b)
}

func (t *tally) tail() string {
	var last []string
	s := bufio.NewScanner(&t.text)
	for s.Scan() {
		last = append(last, s.Text())
	}
	return strings.Join(last[max(0, len(last)-20):], "\n")
}

func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
