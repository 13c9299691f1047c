// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fragile is a test that fails in its second run and in no other.
const fragile = `package fragile

import (
	"os"
	"testing"
)

func TestFragile(t *testing.T) {
	f, err := os.OpenFile("runs", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("."); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile("runs"); len(b) == 2 {
		t.Error("the second run")
	}
}

func TestSolid(*testing.T) {}
`

func TestRepeat(t *testing.T) {
	t.Parallel()
	root, out := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"go.mod": "module fragile\n\ngo 1.26\n", "fragile_test.go": fragile} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := part{name: "some", root: root, env: []string{"GOWORK=off"}}
	if err := repeat(t.Context(), []part{p}, 3, out); err == nil || !strings.Contains(err.Error(), out) {
		t.Errorf("the error is %v, want one that names %s", err, out)
	}
	if runs, err := os.ReadFile(filepath.Join(root, "runs")); string(runs) != "..." {
		t.Errorf("it ran %d times (%v), want 3", len(runs), err)
	}
	var kept []string
	files, _ := filepath.Glob(filepath.Join(out, "*"))
	for _, f := range files {
		kept = append(kept, filepath.Base(f))
	}
	if want := []string{"some-2.log"}; !slices.Equal(kept, want) {
		t.Fatalf("%v are kept, want %v", kept, want)
	}
	if got := failures(files[0]); !slices.Equal(got, []string{"TestFragile"}) {
		t.Errorf("failures are %v", got)
	}
	p.flags = []string{"run=Solid"}
	if err := repeat(t.Context(), []part{p}, 2, out); err != nil {
		t.Errorf("what always passes gave %v", err)
	}
}

func TestPartsPrintWholeLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &screen{to: &out}
	one, two := s.named("one"), s.named("two")
	fmt.Fprint(one, "a ")
	fmt.Fprint(two, "b\nc")
	fmt.Fprint(one, "line\n")
	one.flush()
	two.flush()
	want := "two      | b\none      | a line\ntwo      | c\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for want, names := range map[string][]string{
		"unit cluster envtest netlab bench mutation e2e": nil,
		"cluster e2e-full": {"e2e-full", "cluster"},
	} {
		got, err := choose(parts("/"), names)
		if err != nil {
			t.Fatal(err)
		}
		var chosen []string
		for _, p := range got {
			chosen = append(chosen, p.name)
		}
		if strings.Join(chosen, " ") != want {
			t.Errorf("%v chooses %v, want %s", names, chosen, want)
		}
	}
	if _, err := choose(parts("/"), []string{"unti"}); err == nil {
		t.Error("a part that is not there was taken")
	}
}
