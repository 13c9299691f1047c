// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// repository is where the tests run from, relative to this package.
const repository = "../../.."

// cluster is one that a test brought up.
type cluster struct {
	t          *testing.T
	devcluster string
	testapp    string
	dir, name  string
	kubeconfig string
}

// programs is where the tests' own programs are, for all of them.
var programs string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "acceptance-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(programs) }()
	return m.Run()
}

// build makes the programs that a test needs, or skips it.
func build(t *testing.T) (devcluster, testapp string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: a cluster needs root")
	}
	if complete, _ := filepath.Glob(filepath.Join(cache(), "*", ".complete")); len(complete) == 0 {
		t.Skipf("skipped: no cluster binaries in %s; run devcluster binaries", cache())
	}
	if err := built(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(programs, "devcluster"), filepath.Join(programs, "testapp")
}

// built builds them once.
var built = sync.OnceValue(func() error {
	return errors.Join(
		goBuild(filepath.Join(repository, "test/cluster"), filepath.Join(programs, "devcluster"), "./cmd/devcluster"),
		goBuild(repository, filepath.Join(programs, "testapp"), "./test/app"))
})

func cache() string {
	if c := os.Getenv("DEVCLUSTER_CACHE"); c != "" {
		return c
	}
	return filepath.Join(repository, ".work", "cluster-bin")
}

func goBuild(dir, out, pkg string) error {
	c := exec.Command("go", "build", "-o", out, pkg)
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if b, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, b)
	}
	return nil
}

// up brings a cluster up and takes it down when the test ends.
func up(t *testing.T, devcluster, testapp, name string, args ...string) *cluster {
	t.Helper()
	dir := t.TempDir()
	c := &cluster{t: t, devcluster: devcluster, testapp: testapp, dir: dir, name: name, kubeconfig: filepath.Join(dir, "access")}
	image := filepath.Join(dir, "testapp.tar")
	c.must("build", "--binary", testapp+"=/testapp", "--tag", "isthmus/testapp:test", "-o", image)
	t.Cleanup(c.down)
	c.must(append([]string{"up", "--testapp", testapp, "--image", image, "--kubeconfig", c.kubeconfig}, args...)...)
	return c
}

func (c *cluster) down() {
	c.t.Helper()
	if c.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(c.dir, c.name, "logs", "*", "cell.log"))
		b, _ := exec.Command("tail", append([]string{"-v", "-n", "20", filepath.Join(c.dir, c.name, "logs", "keeper.log")}, logs...)...).CombinedOutput()
		c.t.Logf("what the cluster says of itself:\n%s", b)
	}
	c.must("down")
	c.leavesNothing()
}

// leavesNothing looks for what a cluster could leave on the machine.
func (c *cluster) leavesNothing() {
	c.t.Helper()
	if _, err := os.Stat(filepath.Join(c.dir, c.name)); err == nil {
		c.t.Errorf("directory %s is left", filepath.Join(c.dir, c.name))
	}
	if _, err := os.Stat(c.kubeconfig); err == nil {
		c.t.Errorf("kubeconfig %s is left", c.kubeconfig)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + spec.Cluster{Name: c.name, Dir: filepath.Join(c.dir, c.name)}.Cgroup()); len(left) > 0 {
		c.t.Errorf("cgroups are left: %v", left)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), c.dir) {
		c.t.Errorf("mounts below %s are left (%v)", c.dir, err)
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		if b, err := os.ReadFile(l); err == nil && bytes.Contains(b, []byte(c.dir+"/"+c.name)) {
			c.t.Errorf("process is left: %s", bytes.ReplaceAll(b, []byte{0}, []byte(" ")))
		}
	}
}

// run runs the command and returns what it printed.
func (c *cluster) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.devcluster, append([]string{args[0], "--name", c.name, "--dir", c.dir}, args[1:]...)...)
	cmd.Dir = repository
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("devcluster %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

func (c *cluster) must(args ...string) string {
	c.t.Helper()
	out, err := c.run(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) apply(yaml string) {
	c.t.Helper()
	f := filepath.Join(c.t.TempDir(), "objects.yaml")
	if err := os.WriteFile(f, []byte(yaml), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.must("kubectl", "apply", "-f", f)
}

// answer is what the test application's client prints.
type answer struct {
	OK    bool   `json:"ok"`
	Error string `json:"error"`
	Body  any    `json:"body"`
}

// name is what the server calls itself.
func (a answer) name() string {
	m, _ := a.Body.(map[string]any)
	n, _ := m["name"].(string)
	return n
}

// remote is whom the server saw.
func (a answer) remote() string {
	m, _ := a.Body.(map[string]any)
	r, _ := m["remote"].(string)
	ip, _, _ := net.SplitHostPort(r)
	return ip
}

// ask runs the client in a pod, on the node ("node") or beyond the router ("outside").
func (c *cluster) ask(from string, request ...string) answer {
	c.t.Helper()
	var out string
	request = append(request, "--timeout", "2s")
	switch from {
	case "node":
		out, _ = c.run(append([]string{"exec", "--", c.testapp}, request...)...)
	case "outside":
		out, _ = c.run(append([]string{"exec", "--outside", "--", c.testapp}, request...)...)
	default:
		out, _ = c.run(append([]string{"kubectl", "exec", from, "--", "/testapp"}, request...)...)
	}
	var a answer
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		c.t.Fatalf("%s from %s printed %q: %v", request, from, out, err)
	}
	return a
}

// tries are how often a change may take to be seen; each takes a tenth of a second
// or more.
const tries = 20

func (c *cluster) reaches(from string, request ...string) answer {
	c.t.Helper()
	var a answer
	for range tries {
		if a = c.ask(from, request...); a.OK {
			return a
		}
	}
	c.t.Errorf("%s from %s: %s", request, from, a.Error)
	return a
}

func (c *cluster) isDenied(from string, request ...string) {
	c.t.Helper()
	var a answer
	for range tries {
		if a = c.ask(from, request...); !a.OK {
			return
		}
	}
	c.t.Errorf("%s from %s was answered: %v", request, from, a.Body)
}
