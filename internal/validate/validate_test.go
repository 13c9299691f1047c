// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

// example is one entry of the files in testdata.
type example struct {
	Case      string          `json:"case"`
	Kind      string          `json:"kind"`
	Namespace string          `json:"namespace"`
	Spec      json.RawMessage `json:"spec"`
}

func examples(tb testing.TB, file string) []example {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	var out []example
	if err := yaml.UnmarshalStrict(b, &out); err != nil {
		tb.Fatalf("%s: %v", file, err)
	}
	return out
}

func rules() Rules {
	return Rules{RootNamespace: "isthmus-system", Reserved: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}}
}

// TestBadObjects compares what is said about each object of bad.yaml with bad.txt.
// Every one must be refused or warned about.
func TestBadObjects(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	seen := map[string]bool{}
	for _, e := range examples(t, "testdata/bad.yaml") {
		if seen[e.Kind+e.Case] {
			t.Errorf("two cases are called %q", e.Case)
		}
		seen[e.Kind+e.Case] = true
		report := Check(Object{Kind: e.Kind, Namespace: e.Namespace, Spec: e.Spec}, rules())
		if len(report.Refused)+len(report.Warned) == 0 {
			t.Errorf("%s: %s: nothing is said", e.Kind, e.Case)
		}
		got.WriteString(e.Kind + ": " + e.Case + "\n")
		for _, p := range report.Refused {
			got.WriteString("  refused: " + p.String() + "\n")
		}
		for _, p := range report.Warned {
			got.WriteString("  warned: " + p.String() + "\n")
		}
	}
	if len(seen) < 60 {
		t.Errorf("only %d cases", len(seen))
	}
	if *update {
		if err := os.WriteFile("testdata/bad.txt", got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// TestGoodObjects holds examples of every feature; none gives rise to a word.
func TestGoodObjects(t *testing.T) {
	t.Parallel()
	for _, e := range examples(t, "testdata/good.yaml") {
		report := Check(Object{Kind: e.Kind, Namespace: e.Namespace, Spec: e.Spec}, rules())
		for _, p := range append(report.Refused, report.Warned...) {
			t.Errorf("%s: %s: %s", e.Kind, e.Case, p)
		}
	}
}

func TestKindsWithoutRulesAreAccepted(t *testing.T) {
	t.Parallel()
	if err := Check(Object{Kind: "EnvoyFilter", Spec: []byte(`{"x":1}`)}, rules()).Err(); err != nil {
		t.Error(err)
	}
	for _, k := range Kinds() {
		if specOf(k) == nil {
			t.Errorf("kind %s is listed and has no spec", k)
		}
	}
}

func TestErrNamesEveryProblemOnALineOfItsOwn(t *testing.T) {
	t.Parallel()
	err := Check(Object{Kind: "Gateway", Spec: []byte(`{"servers":[{}]}`)}, rules()).Err()
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got %v, want two lines", err)
	}
}

func FuzzCheck(f *testing.F) {
	for _, file := range []string{"testdata/bad.yaml", "testdata/good.yaml"} {
		for _, e := range examples(f, file) {
			f.Add(e.Kind, e.Namespace, []byte(e.Spec))
		}
	}
	f.Fuzz(func(t *testing.T, kind, namespace string, spec []byte) {
		o := Object{Kind: kind, Namespace: namespace, Spec: spec}
		first, second := Check(o, rules()), Check(o, rules())
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("two answers to one question:\n%s", diff)
		}
	})
}
