// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package arch holds the structure of the repository: who may import whom, what
// a binary may link, how large files may grow, that packages say what they are.
package arch

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/isthmus-mesh/isthmus/"

// pkg is what "go list" says of a package.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Doc        string
	Name       string
}

// rule forbids imports: packages under from must not import anything under to,
// unless it is listed in except.
type rule struct {
	why    string
	from   string
	to     []string
	except []string
}

var importRules = []rule{
	{why: "the API package holds types and nothing else", from: "api/", to: []string{module}},
	{why: "shared leaves import no tree", from: "internal/{identity,pki,conditions,validate,inject,render,version,lifecycle,memory,topology}",
		to: []string{module + "internal/operator", module + "internal/isthmusd", module + "internal/agent", module + "internal/cli", module + "controllers", module + "cmd"}},
	{why: "shared leaves hold no clients", from: "internal/{identity,pki,conditions,validate,inject,render,version,lifecycle,memory,topology}",
		to: []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"}},
	{why: "isthmusd's tree imports only itself, the API and the leaves", from: "internal/isthmusd",
		to: []string{module + "internal/operator", module + "internal/agent", module + "internal/cli", module + "controllers"}},
	{why: "the agent's tree imports only itself and the leaves", from: "internal/agent",
		to: []string{module + "internal/operator", module + "internal/isthmusd", module + "internal/cli", module + "controllers"}},
	{why: "the operator's tree imports only itself, the API, charts and the leaves", from: "internal/operator",
		to: []string{module + "internal/isthmusd", module + "internal/agent", module + "internal/cli"}},
	{why: "resolve knows no protobuf of Envoy", from: "internal/isthmusd/resolve", to: []string{"github.com/envoyproxy/go-control-plane"}},
	{why: "the IR knows neither Envoy, Istio nor Kubernetes", from: "internal/isthmusd/ir", to: []string{"github.com/envoyproxy/", "istio.io/", "k8s.io/", "sigs.k8s.io/"}},
	{why: "envoy knows no Kubernetes and no Istio types", from: "internal/isthmusd/envoy", to: []string{"istio.io/", "k8s.io/", "sigs.k8s.io/", module + "internal/isthmusd/snapshot", module + "internal/isthmusd/resolve"}},
	{why: "xds ships bytes and knows no API", from: "internal/isthmusd/xds", to: []string{"istio.io/", "k8s.io/", module + "internal/isthmusd/resolve", module + "internal/isthmusd/envoy", module + "internal/isthmusd/snapshot"},
		except: []string{"k8s.io/utils/clock"}},
	{why: "only ingest watches", from: "internal/isthmusd/{snapshot,catalog,resolve,ir,envoy,generate,xds}", to: []string{"k8s.io/client-go"}},
}

// linkRules name what a binary must not link at all.
var linkRules = map[string][]string{
	"cmd/isthmus-agent": {"k8s.io/client-go", "sigs.k8s.io/controller-runtime", "helm.sh/helm"},
	"cmd/isthmusd":      {"helm.sh/helm", "sigs.k8s.io/controller-runtime"},
	"cmd/operator":      {"github.com/envoyproxy/go-control-plane"},
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	c := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,Doc,Name"}, args...)...)
	c.Dir = root(t)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	var ps []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	return ps
}

// within tells whether the path lies under the pattern; a {a,b} in the pattern is either.
func within(path, pattern string) bool {
	head, rest, braces := strings.Cut(pattern, "{")
	if !braces {
		pattern = strings.TrimSuffix(pattern, "/")
		return path == pattern || strings.HasPrefix(path, pattern+"/")
	}
	inside, tail, _ := strings.Cut(rest, "}")
	for _, alt := range strings.Split(inside, ",") {
		if within(path, head+alt+tail) {
			return true
		}
	}
	return false
}

func TestImportsFollowTheArchitecture(t *testing.T) {
	for _, p := range list(t, "./...") {
		path := strings.TrimPrefix(p.ImportPath, module)
		for _, r := range importRules {
			if !within(path, r.from) {
				continue
			}
			for _, imp := range p.Imports {
				if breaches(imp, r) && !within(strings.TrimPrefix(imp, module), r.from) {
					t.Errorf("%s imports %s: %s", path, imp, r.why)
				}
			}
		}
	}
}

func breaches(imp string, r rule) bool {
	for _, e := range r.except {
		if strings.HasPrefix(imp, e) {
			return false
		}
	}
	for _, to := range r.to {
		if strings.HasPrefix(imp, to) {
			return true
		}
	}
	return false
}

func TestBinariesLinkOnlyWhatTheyMay(t *testing.T) {
	for cmd, forbidden := range linkRules {
		for _, p := range list(t, "./"+cmd) {
			for _, dep := range p.Deps {
				for _, f := range forbidden {
					if strings.HasPrefix(dep, f) {
						t.Errorf("%s links %s", cmd, dep)
					}
				}
			}
		}
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	for _, p := range list(t, "./...") {
		if p.Doc == "" && !strings.HasPrefix(p.ImportPath, module+"test/") {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestNoPackageIsADrawerForOddments(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, bad := range []string{"util", "utils", "common", "helpers", "misc", "types"} {
			if p.Name == bad {
				t.Errorf("%s: %q is no idea; name the package by what it is about", p.ImportPath, bad)
			}
		}
	}
}

// budgets of the style guide: hard limits in lines.
const (
	maxFile     = 800
	maxFunction = 100
	maxMain     = 150
)

func TestFilesAndFunctionsStaySmall(t *testing.T) {
	eachSource(t, func(path string, src []byte) {
		lines := bytes.Count(src, []byte("\n"))
		limit := maxFile
		if strings.HasPrefix(path, "cmd/") {
			limit = maxMain
		}
		if lines > limit && !strings.HasSuffix(path, "_test.go") {
			t.Errorf("%s has %d lines, more than %d: a concept is missing", path, lines, limit)
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, src, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || strings.HasSuffix(path, "_test.go") {
				continue
			}
			if n := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line; n > maxFunction {
				t.Errorf("%s: %s has %d lines, more than %d", path, fn.Name.Name, n, maxFunction)
			}
		}
	})
}

func TestSourceFilesCarryTheLicence(t *testing.T) {
	const want = "// Copyright The Isthmus Authors\n// SPDX-License-Identifier: Apache-2.0\n"
	eachSource(t, func(path string, src []byte) {
		if !bytes.Contains(src[:min(len(src), 400)], []byte(want)) {
			t.Errorf("%s does not begin with the licence header", path)
		}
	})
}

// envAllowed are the places below cmd that may read the environment: none of the
// product, and the tests' own programs.
func TestOnlyCommandsReadTheEnvironment(t *testing.T) {
	eachSource(t, func(path string, src []byte) {
		if strings.HasPrefix(path, "cmd/") || strings.HasPrefix(path, "test/") || strings.HasSuffix(path, "_test.go") {
			return
		}
		for _, call := range []string{"os.Getenv(", "os.LookupEnv(", "os.Environ("} {
			if bytes.Contains(src, []byte(call)) {
				t.Errorf("%s calls %s): configuration is read in cmd and passed down", path, call)
			}
		}
	})
}

func TestRootModuleReplacesNothing(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("\nreplace ")) {
		t.Error("go.mod has a replace directive")
	}
}

// eachSource calls f for every Go file of the root module that a person wrote.
func eachSource(t *testing.T, f func(path string, src []byte)) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, p)
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || rel == "bin" || rel == "test/cluster" || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasPrefix(d.Name(), "zz_") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f(rel, src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
