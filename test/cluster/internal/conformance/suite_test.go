// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/verdict"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	const (
		policy   = "[sig-network] Netpol NetworkPolicy between server and client should x [Feature:NetworkPolicy]"
		sctp     = "[sig-network] Netpol [LinuxOnly] NetworkPolicy between server and client using SCTP should x [Feature:NetworkPolicy]"
		service  = "[sig-network] Services should x"
		restart  = "[sig-network] Services should work after restarting y [Disruptive]"
		stranger = "[sig-apps] Services should x"
	)
	short, err := Find("networkpolicy-short")
	if err != nil {
		t.Fatal(err)
	}
	var ten []string
	for _, s := range short.only {
		ten = append(ten, "[sig-network] Netpol "+s+" [Feature:NetworkPolicy]")
	}
	cases := map[string]struct {
		suite string
		all   []string
		run   []string
		out   map[string]int
		fails string
	}{
		"a suite is about its own cases": {suite: "networkpolicy", all: []string{policy, service, stranger}, run: []string{policy}},
		"what cannot run here is counted by its reason": {
			suite: "networkpolicy", all: []string{sctp, policy, sctp}, run: []string{policy}, out: map[string]int{"needs a kernel with SCTP": 2},
		},
		"so in another suite":       {suite: "services", all: []string{service, restart}, run: []string{service}, out: map[string]int{"needs a control plane of pods": 1}},
		"the short suite is a part": {suite: "networkpolicy-short", all: append([]string{policy, sctp}, ten...), run: ten},
		"a case that is not there any more is an error": {
			suite: "networkpolicy-short", all: ten[1:], fails: short.only[0],
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Find(c.suite)
			if err != nil {
				t.Fatal(err)
			}
			run, out, err := s.Choose(c.all)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got error %v, want one that names %q", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.run, run); d != "" {
				t.Errorf("cases to run (-want +got):\n%s", d)
			}
			if c.out == nil {
				c.out = map[string]int{}
			}
			if d := cmp.Diff(c.out, out); d != "" {
				t.Errorf("cases left out (-want +got):\n%s", d)
			}
		})
	}
}

func TestFindNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	if _, err := Find("storage"); err == nil || !strings.Contains(err.Error(), "networkpolicy") {
		t.Errorf("got error %v, want one that names the suites", err)
	}
}

func TestEveryCaseIsDealtOnce(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		processes int
		want      [][]string
	}{
		"fewer processes than cases": {2, [][]string{{"a", "c"}, {"b"}}},
		"more processes than cases":  {5, [][]string{{"a"}, {"b"}, {"c"}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(c.want, deal([]string{"a", "b", "c"}, c.processes)); d != "" {
				t.Errorf("shares (-want +got):\n%s", d)
			}
		})
	}
}

func TestFiguresOfWhatTheSuiteTells(t *testing.T) {
	t.Parallel()
	told := `{"case":"a","state":"passed","seconds":1}
{"case":"b","state":"skipped","why":"needs two nodes"}
{"case":"c","state":"timedout","why":"too slow","output":"all of it"}
`
	base := filepath.Join(t.TempDir(), "x")
	verdicts := make(chan verdict.Verdict, 3)
	if err := pass(strings.NewReader(told), base, verdicts); err != nil {
		t.Fatal(err)
	}
	close(verdicts)
	f := Figures{Skipped: map[string]int{"needs a cloud": 2}, Took: time.Minute}
	var said bytes.Buffer
	n := 0
	for v := range verdicts {
		n++
		f.count(v)
		say(&said, v, n, 3)
	}
	want := "1 passed, 1 failed, 3 skipped in 1m0s\n  2 skipped: needs a cloud\n  1 skipped: needs two nodes"
	if got := f.String(); got != want {
		t.Errorf("figures are\n%s\nwant\n%s", got, want)
	}
	if !strings.Contains(said.String(), "[3/3] timedout") || !strings.Contains(said.String(), "too slow") || !strings.Contains(said.String(), base) {
		t.Errorf("progress does not tell of the failure:\n%s", said.String())
	}
	if b, err := os.ReadFile(base + "-failure-1.log"); err != nil || !strings.Contains(string(b), "all of it") {
		t.Errorf("the failure's output: %q and %v", b, err)
	}
}
