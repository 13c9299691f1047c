// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

var (
	// dnsLabel is one label of a host name, in any case, as Istio takes it.
	dnsLabel = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9])?$`)
	// wildLabel is the first label of a wildcard host: * or *-suffix.
	wildLabel = regexp.MustCompile(`^\*(-[-a-zA-Z0-9]{0,60}[a-zA-Z0-9])?$`)
	// subsetName is a DNS label in any case, as Istio takes it.
	subsetName = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$`)
	// name is what Kubernetes takes as a namespace.
	name = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	// objectName is what Kubernetes takes as the name of most objects.
	objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	// numeric tells an address from a host name by its last label.
	numeric = regexp.MustCompile(`^[0-9]+$`)
)

// hostFault tells what is wrong with a host name without a wildcard; "" if nothing.
func hostFault(host string) string {
	if host == "" {
		return "must not be empty"
	}
	if len(host) > 255 {
		return quote(host) + " is longer than 255 bytes"
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, l := range labels {
		if !dnsLabel.MatchString(l) {
			return quote(host) + " is not a host name: " + quote(l) + " is not a DNS label"
		}
	}
	if numeric.MatchString(labels[len(labels)-1]) && len(labels) > 1 {
		return quote(host) + " looks like an address, not like a host name"
	}
	return ""
}

// wildcardFault is hostFault for hosts that may begin with a wildcard.
func wildcardFault(host string) string {
	if host == "*" {
		return ""
	}
	if !strings.Contains(host, "*") {
		return hostFault(host)
	}
	first, rest, ok := strings.Cut(host, ".")
	if !ok || !wildLabel.MatchString(first) || hostFault(rest) != "" {
		return quote(host) + " is not a wildcard host"
	}
	return ""
}

const (
	rightHost     = "use a DNS name such as api.example.com"
	rightWildcard = "use a DNS name such as api.example.com, or a wildcard in the first label such as *.example.com"
)

// isWildcard tells whether a host stands for more than itself.
func isWildcard(host string) bool { return strings.HasPrefix(host, "*") }

// covers tells whether the hosts that pattern stands for include all that host
// stands for.
func covers(pattern, host string) bool {
	pattern, host = strings.ToLower(pattern), strings.ToLower(host)
	if pattern == "*" || pattern == host {
		return true
	}
	return isWildcard(pattern) && strings.HasSuffix(strings.TrimPrefix(host, "*"), strings.TrimPrefix(pattern, "*"))
}

// checkExportTo follows Istio: ".", "*", "~" or namespaces.
func checkExportTo(c checker, exportTo []string) {
	for i, e := range exportTo {
		at := c.index(i)
		switch {
		case e == "*" && len(exportTo) > 1:
			at.refuse(`"*" already means every namespace`, `use it alone`)
		case e == "~" && len(exportTo) > 1:
			at.refuse(`"~" means no namespace at all`, `use it alone`)
		case e != "." && e != "*" && e != "~" && !name.MatchString(e):
			at.refuse(quote(e)+" is not a namespace", `use ".", "*", "~" or the name of a namespace`)
		case slices.Contains(exportTo[:i], e):
			at.refuse(quote(e)+" is there twice", "remove one")
		}
	}
}

// addressFault tells what is wrong with an IP address; "" if nothing.
func addressFault(s string) string {
	if _, err := netip.ParseAddr(s); err != nil {
		return quote(s) + " is not an IP address"
	}
	return ""
}

// parseRange reads an address or a CIDR.
func parseRange(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

const rightRange = "use an address such as 10.0.0.1 or a range such as 10.0.0.0/8"
