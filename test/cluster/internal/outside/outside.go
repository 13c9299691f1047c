// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package outside is the world beyond the cluster's router: a few hosts, each an
// address with a process of the test application, that write down who came.
package outside

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/pki"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
)

// Host is one of them.
type Host struct {
	Name     string // short
	DNS      string
	Wildcard bool // DNS is a suffix, all names of which are this host
	IPv4     string
	IPv6     string // in dual clusters
}

func (h Host) addresses(c spec.Cluster) []string {
	if c.IPFamily == spec.Dual {
		return []string{h.IPv4, h.IPv6}
	}
	return []string{h.IPv4}
}

// listen is the port at all of the host's addresses.
func (h Host) listen(c spec.Cluster, port string) string {
	var all []string
	for _, a := range h.addresses(c) {
		all = append(all, net.JoinHostPort(a, port))
	}
	return strings.Join(all, ",")
}

// Hosts are all of them.
func Hosts() []Host {
	return []Host{
		{Name: "allowed", DNS: "allowed.outside.test", IPv4: "203.0.113.10", IPv6: "2001:db8::10"},
		{Name: "other", DNS: "other.outside.test", IPv4: "203.0.113.20", IPv6: "2001:db8::20"},
		{Name: "wild", DNS: "wild.outside.test", Wildcard: true, IPv4: "203.0.113.30", IPv6: "2001:db8::30"},
	}
}

// Addresses are the hosts' addresses.
func Addresses(c spec.Cluster) []string {
	var a []string
	for _, h := range Hosts() {
		a = append(a, h.addresses(c)...)
	}
	return a
}

// HostsFile is the text from which DNS answers for names that are not wildcards.
func HostsFile(c spec.Cluster) string {
	var b strings.Builder
	for _, h := range Hosts() {
		if h.Wildcard {
			continue
		}
		for _, a := range h.addresses(c) {
			fmt.Fprintf(&b, "%s %s\n", a, h.DNS)
		}
	}
	return b.String()
}

// CA is the file with the certificate that the hosts' certificates are signed by.
func CA(c spec.Cluster) string { return c.Path("outside", "ca.crt") }

// Prepare makes the hosts' certificates.
func Prepare(c spec.Cluster) error {
	ca, err := pki.NewAuthority("outside")
	if err != nil {
		return fmt.Errorf("make the outside's authority: %w", err)
	}
	if err := ca.Pair.WriteTo(c.Path("outside", "ca")); err != nil {
		return fmt.Errorf("keep the outside's authority: %w", err)
	}
	for _, h := range Hosts() {
		s := pki.Subject{CommonName: h.DNS, DNS: []string{h.DNS}, IPs: h.addresses(c)}
		if h.Wildcard {
			s.DNS = append(s.DNS, "*."+h.DNS)
		}
		pair, err := ca.Issue(s)
		if err != nil {
			return fmt.Errorf("make certificate of %s: %w", h.DNS, err)
		}
		if err := pair.WriteTo(c.Path("outside", h.Name)); err != nil {
			return fmt.Errorf("keep certificate of %s: %w", h.DNS, err)
		}
	}
	return nil
}

// Programs are the hosts' processes. If the test application has not been built
// yet, they start as soon as it is.
func Programs(c spec.Cluster) []supervise.Program {
	var all []supervise.Program
	for _, h := range Hosts() {
		file := func(ext string) string { return c.Path("outside", h.Name+ext) }
		all = append(all, supervise.Program{
			Name: "outside-" + h.Name,
			Path: c.TestApp,
			Args: []string{
				"serve", "--name", h.Name, "--log", file(".jsonl"),
				"--http", h.listen(c, "80"), "--https", h.listen(c, "443"), "--cert", file(".crt"), "--key", file(".key"),
				"--tcp", h.listen(c, "9000"), "--udp", h.listen(c, "9001"), "--grpc", h.listen(c, "50051"),
			},
		})
	}
	return all
}

// Visit is one line of a host's log.
type Visit struct {
	Time time.Time
	Line string
}

// Visits returns what came to the host, or to all if it is empty, since then, in
// the order of time.
func Visits(c spec.Cluster, host string, since time.Time) ([]Visit, error) {
	var all []Visit
	known := false
	for _, h := range Hosts() {
		if host != "" && host != h.Name && host != h.DNS {
			continue
		}
		known = true
		v, err := read(c.Path("outside", h.Name+".jsonl"), since)
		if err != nil {
			return nil, err
		}
		all = append(all, v...)
	}
	if !known {
		return nil, fmt.Errorf("there is no host %q outside", host)
	}
	slices.SortStableFunc(all, func(a, b Visit) int { return a.Time.Compare(b.Time) })
	return all, nil
}

func read(file string, since time.Time) ([]Visit, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	var all []Visit
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var at struct {
			Time time.Time `json:"time"`
		}
		if err := json.Unmarshal(lines.Bytes(), &at); err != nil {
			return nil, fmt.Errorf("parse %s: %w", file, err)
		}
		if !at.Time.Before(since) {
			all = append(all, Visit{Time: at.Time, Line: lines.Text()})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return all, nil
}
