// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package conformance runs Kubernetes' own end-to-end cases about networks
// against a cluster: which of them, several at a time, and how they ended.
package conformance

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Suite is a choice of cases.
type Suite struct {
	Name  string
	about *regexp.Regexp
	skip  []exception
	only  []string // if there are any, of the cases about it only these
	tools bool     // the cases call tools in their image
}

// exception is cases that are not run, and why.
type exception struct {
	cases *regexp.Regexp
	why   string
}

var (
	aboutPolicies = regexp.MustCompile(`^\[sig-network\] Netpol `)
	noSCTP        = exception{regexp.MustCompile(`using SCTP|basic SCTP service|\[Feature:SCTPConnectivity\]`), "needs a kernel with SCTP"}
	noCloud       = exception{regexp.MustCompile(`\[Provider:|\[Feature:`), "needs a cloud"}
	noPods        = exception{regexp.MustCompile(`\[Disruptive\]`), "needs a control plane of pods"}
	noSerial      = exception{regexp.MustCompile(`\[Serial\]`), "changes the cluster's own DNS"}
)

// Suites are all there are.
func Suites() []Suite {
	return []Suite{
		{Name: "networkpolicy", about: aboutPolicies, skip: []exception{noSCTP}},
		{Name: "networkpolicy-short", about: aboutPolicies, only: short},
		{Name: "services", about: regexp.MustCompile(`^\[sig-network\] Services `), skip: []exception{noSCTP, noPods}, tools: true},
		{Name: "dualstack", about: regexp.MustCompile(`^\[sig-network\] \[Feature:IPv6DualStack\] `), skip: []exception{noSCTP}, tools: true},
		{Name: "dns", about: regexp.MustCompile(`^\[sig-network\] DNS `), skip: []exception{noCloud, noSerial}, tools: true},
	}
}

// short has one case of each kind of rule.
var short = []string{
	"NetworkPolicy between server and client should support a 'default-deny-all' policy",
	"NetworkPolicy between server and client should enforce policy based on PodSelector and NamespaceSelector",
	"NetworkPolicy between server and client should enforce policy based on Ports",
	"NetworkPolicy between server and client should allow ingress access from namespace on one named port",
	"NetworkPolicy between server and client should allow egress access on one named port",
	"NetworkPolicy between server and client should work with Ingress, Egress specified together",
	"NetworkPolicy between server and client should enforce except clause while egress access to server in CIDR block",
	"NetworkPolicy between server and client should enforce updated policy",
	"NetworkPolicy between server and client should allow ingress access from updated namespace",
	"[LinuxOnly] NetworkPolicy between server and client using UDP should enforce policy based on Ports",
}

// Find returns the suite of that name.
func Find(name string) (Suite, error) {
	var names []string
	for _, s := range Suites() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Suite{}, fmt.Errorf("there is no suite %q: want one of %s", name, strings.Join(names, ", "))
}

// plain is the name without its tags.
func plain(name string) string {
	name, _, _ = strings.Cut(strings.TrimPrefix(name, "[sig-network] Netpol "), " [Feature:NetworkPolicy]")
	return name
}

// Choose returns which of all cases are to run, and how many are left out for
// what reason.
func (s Suite) Choose(all []string) (run []string, out map[string]int, err error) {
	out = map[string]int{}
	missing := slices.Clone(s.only)
	for _, c := range all {
		if !s.about.MatchString(c) {
			continue
		}
		if i := slices.Index(missing, plain(c)); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
		} else if len(s.only) > 0 {
			continue
		}
		if i := slices.IndexFunc(s.skip, func(e exception) bool { return e.cases.MatchString(c) }); i >= 0 {
			out[s.skip[i].why]++
			continue
		}
		run = append(run, c)
	}
	if len(missing) > 0 {
		return nil, nil, fmt.Errorf("suite %s: the cases %q are not there", s.Name, missing)
	}
	return run, out, nil
}
