// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package acceptance

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// machine is namespaces that stand in for the host, so that what a cluster leaves
// on it can be told from what others do beside: network, mounts and processes of
// its own, and empty directories where programs leave their state.
type machine struct {
	t          *testing.T
	devcluster string
	testapp    string
	dir        string // of clusters, and of everything that a test writes
	first      string // the first process's number, as seen from here
}

// machines have these to themselves.
var stateDirectories = []string{"/run", "/var/lib", "/var/log", "/etc/cni", "/root"}

func newMachine(t *testing.T, devcluster, testapp string) *machine {
	t.Helper()
	m := &machine{t: t, devcluster: devcluster, testapp: testapp, dir: filepath.Join(t.TempDir(), "clusters")}
	var cover strings.Builder
	for _, d := range stateDirectories {
		fmt.Fprintf(&cover, "test ! -d %s || mount -t tmpfs none %s\n", d, d)
	}
	// The first process repeats what it hears, so that it is known to have begun. It
	// ends with its input, and so with this test, whatever way that ends.
	holder := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec",
		cover.String()+"ip link set lo up\nexec cat")
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	holder.Stderr = os.Stderr
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = holder.Wait()
	})
	if _, err := io.WriteString(in, "begin\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("make the machine: %v", err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", holder.Process.Pid, holder.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m.first = strings.TrimSpace(string(children))
	return m
}

// command is one that runs on the machine.
func (m *machine) command(name string, args ...string) *exec.Cmd {
	wd, err := filepath.Abs(repository)
	if err != nil {
		m.t.Fatal(err)
	}
	enter := []string{"--target", m.first, "--net", "--mount", "--pid", "--", "sh", "-c", `cd "$0" && exec "$@"`, wd, name}
	c := exec.Command("nsenter", append(enter, args...)...)
	c.Env = append(os.Environ(), "HOME=/root")
	return c
}

// cluster is the arguments that name the machine's cluster.
func (m *machine) cluster(verb string, args ...string) []string {
	return append([]string{verb, "--name", "m", "--dir", m.dir}, args...)
}

func (m *machine) must(name string, args ...string) string {
	m.t.Helper()
	out, err := m.command(name, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// proc is the machine's own /proc.
func (m *machine) proc(elem ...string) string {
	return filepath.Join(append([]string{"/proc", m.first, "root/proc"}, elem...)...)
}

// processes are the machine's, their command lines by number.
func (m *machine) processes() map[int]string {
	all := map[int]string{}
	files, _ := filepath.Glob(m.proc("[0-9]*", "cmdline"))
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err != nil || len(line) == 0 { // it has ended, and nobody may care on such a machine
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			m.t.Fatal(err)
		}
		all[pid] = strings.TrimSpace(string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
	}
	return all
}

// process is the number on the machine of the process whose command line contains
// the text.
func (m *machine) process(text string) (int, bool) {
	for pid, line := range m.processes() {
		if strings.Contains(line, text) {
			return pid, true
		}
	}
	return 0, false
}

func (m *machine) signal(text string, s syscall.Signal) {
	m.t.Helper()
	pid, ok := m.process(text)
	if !ok {
		m.t.Fatalf("no process %q runs", text)
	}
	m.must("sh", "-c", fmt.Sprintf("kill -%d %d", s, pid))
}

// remains is everything on a machine that a cluster could leave there.
type remains struct {
	Processes, Links, Mounts, Nftables, Namespaces, Cgroups, Files []string
}

func (m *machine) remains() remains {
	m.t.Helper()
	read := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			m.t.Fatal(err)
		}
		return string(b)
	}
	processes := m.processes()
	r := remains{Processes: slices.Sorted(maps.Values(processes))}
	for line := range strings.Lines(read(m.proc("1/net/dev"))) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			r.Links = append(r.Links, strings.TrimSpace(name))
		}
	}
	for line := range strings.Lines(read(m.proc("1/mounts"))) {
		r.Mounts = append(r.Mounts, line)
	}
	r.Nftables = strings.Split(m.must("nft", "list", "ruleset"), "\n")
	// The machine shares these with all others.
	r.Cgroups, _ = filepath.Glob("/sys/fs/cgroup/*/" + spec.Cluster{Name: "m", Dir: filepath.Join(m.dir, "m")}.Cgroup())
	namespaces := map[string]bool{}
	for pid := range processes {
		links, _ := filepath.Glob(m.proc(strconv.Itoa(pid), "ns", "*"))
		for _, l := range links {
			if target, err := os.Readlink(l); err == nil {
				namespaces[target] = true
			}
		}
	}
	r.Namespaces = slices.Sorted(maps.Keys(namespaces))
	for _, d := range append(stateDirectories, filepath.Dir(m.dir)) {
		root := filepath.Join("/proc", m.first, "root", d)
		_ = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && path != root {
				r.Files = append(r.Files, strings.TrimPrefix(path, "/proc/"+m.first+"/root"))
			}
			return nil // what has just gone is not left
		})
	}
	return r
}

// becomes waits until the machine is as it was, but for files below a directory.
func (m *machine) becomes(want remains, but string) {
	m.t.Helper()
	var diff string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		now := m.remains()
		now.Files = slices.DeleteFunc(now.Files, func(f string) bool {
			return but != "" && !slices.Contains(want.Files, f) && (isWithin(f, but) || isWithin(but, f))
		})
		if diff = cmp.Diff(want, now); diff == "" {
			return
		}
	}
	m.t.Errorf("the machine is not as it was (-before +after):\n%s", diff)
}

func isWithin(file, dir string) bool { return file == dir || strings.HasPrefix(file, dir+"/") }

// follow starts the command, which brings a cluster up, and returns when its
// progress has come to that line.
func (m *machine) follow(up *exec.Cmd, line string) {
	m.t.Helper()
	progress, err := up.StderrPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := up.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = up.Process.Kill() })
	var said []string
	for s := bufio.NewScanner(progress); s.Scan(); {
		said = append(said, s.Text())
		if strings.HasSuffix(s.Text(), line) {
			go func() { _, _ = io.Copy(io.Discard, progress) }()
			return
		}
	}
	m.t.Fatalf("it did not come to %q:\n%s", line, strings.Join(said, "\n"))
}
