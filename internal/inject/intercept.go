// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// star says whether an annotation takes "*" for everything.
type star int

const (
	refuseStar star = iota
	allowStar
)

// proxyPorts are the agent's and Envoy's own; they are never redirected.
const proxyPorts = "15020,15021,15090"

// parsePorts reads a list of ports into a flag of intercept.
func parsePorts(flag string, st star) parser {
	return func(s *settings, v string) error {
		v = strings.TrimSpace(v)
		if v == "*" && st == allowStar {
			s.traffic[flag] = v
			return nil
		}
		var out []string
		for _, f := range splitList(v) {
			n, err := strconv.ParseUint(f, 10, 16)
			if err != nil || n == 0 {
				return fmt.Errorf("%q is not a port; must be %snumbers from 1 to 65535, separated by commas", abbreviate(f), starHint(st))
			}
			out = append(out, strconv.FormatUint(n, 10))
		}
		s.traffic[flag] = strings.Join(out, ",")
		return nil
	}
}

// parseRanges reads a list of CIDRs into a flag of intercept.
func parseRanges(flag string, st star) parser {
	return func(s *settings, v string) error {
		v = strings.TrimSpace(v)
		if v == "*" && st == allowStar {
			s.traffic[flag] = v
			return nil
		}
		var out []string
		for _, f := range splitList(v) {
			p, err := netip.ParsePrefix(f)
			if err != nil {
				return fmt.Errorf("%q is not a range; must be %sCIDRs such as 10.0.0.0/8, separated by commas", abbreviate(f), starHint(st))
			}
			out = append(out, p.Masked().String())
		}
		s.traffic[flag] = strings.Join(out, ",")
		return nil
	}
}

// interfaceName is what Linux takes as the name of a network interface, less the
// comma that separates them here.
var interfaceName = regexp.MustCompile(`^[^\s/,:]{1,15}$`)

func parseInterfaces(s *settings, v string) error {
	names := splitList(strings.TrimSpace(v))
	for _, n := range names {
		if !interfaceName.MatchString(n) {
			return fmt.Errorf("%q is not an interface; must be names such as eth1, separated by commas", abbreviate(n))
		}
	}
	s.traffic["--exclude-interfaces"] = strings.Join(names, ",")
	return nil
}

func starHint(st star) string {
	if st == allowStar {
		return `"*" or `
	}
	return ""
}

func splitList(v string) []string {
	if v == "" {
		return nil
	}
	fields := strings.Split(v, ",")
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	return fields
}

// interceptArgs are the arguments of `isthmus-agent intercept` for a pod. A flag
// whose value is the agent's default is still written: a reader of the pod then
// sees all that holds.
func (in *Injector) interceptArgs(s *settings, req Request) []string {
	exclude := proxyPorts
	if own := s.traffic["--exclude-inbound-ports"]; own != "" {
		exclude += "," + own
	}
	ranges := splitList(s.traffic["--exclude-outbound-ranges"])
	whole, portwise := in.bypassOf(req)
	ranges = append(ranges, whole...)
	slices.Sort(ranges)

	args := []string{
		"intercept",
		"--uid", strconv.Itoa(UID),
		"--gid", strconv.Itoa(GID),
		"--inbound-port", "15006",
		"--outbound-port", "15001",
		"--inbound-ports", flagOr(s.traffic, "--inbound-ports", "*"),
		"--exclude-inbound-ports", exclude,
		"--include-outbound-ranges", flagOr(s.traffic, "--include-outbound-ranges", "*"),
	}
	if len(ranges) > 0 {
		args = append(args, "--exclude-outbound-ranges", strings.Join(slices.Compact(ranges), ","))
	}
	for _, flag := range []string{"--outbound-ports", "--exclude-outbound-ports", "--exclude-interfaces"} {
		if v := s.traffic[flag]; v != "" {
			args = append(args, flag, v)
		}
	}
	for _, b := range portwise {
		args = append(args, "--exclude-outbound", b)
	}
	return args
}

// flagOr returns what was annotated, even if it is empty (which means none).
func flagOr(traffic map[string]string, flag, otherwise string) string {
	if v, ok := traffic[flag]; ok {
		return v
	}
	return otherwise
}

// bypassOf returns the ranges that are bypassed for this pod: those with every
// port, and those with some, as CIDR:port,port. Both sorted.
func (in *Injector) bypassOf(req Request) (whole, portwise []string) {
	ns := labels.Set{}
	for k, v := range req.Namespace.Labels {
		ns[k] = v
	}
	ns["kubernetes.io/metadata.name"] = req.Namespace.Name
	for _, b := range in.bypass {
		if !b.namespaces.Matches(ns) || !b.pods.Matches(labels.Set(req.Pod.Labels)) {
			continue
		}
		if len(b.ports) == 0 {
			whole = append(whole, b.cidr.String())
			continue
		}
		ports := make([]string, 0, len(b.ports))
		for _, p := range b.ports {
			ports = append(ports, strconv.Itoa(p))
		}
		portwise = append(portwise, b.cidr.String()+":"+strings.Join(ports, ","))
	}
	slices.Sort(whole)
	slices.Sort(portwise)
	return whole, slices.Compact(portwise)
}
