// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// All in a list of ports or ranges means every one.
const All = "*"

// Config says what to intercept. The zero value intercepts nothing; Default is
// what an injected pod gets.
type Config struct {
	// UID and GID of the proxy, whose own connections pass.
	UID, GID uint32
	// OutboundPort and InboundPort are where the proxy listens.
	OutboundPort, InboundPort uint16
	// Inbound selects ports of the pod; ExcludeInbound counts only when it is all of them.
	Inbound        Ports
	ExcludeInbound []uint16
	// Outbound ports are intercepted whatever the address, ExcludeOutbound never.
	Outbound        Ports
	ExcludeOutbound []uint16
	// Include selects destinations; the exclusions come first.
	Include           Ranges
	ExcludeRanges     []netip.Prefix
	Exclude           []Destination
	ExcludeInterfaces []string
}

// Ports is a selection of ports.
type Ports struct {
	All  bool
	List []uint16
}

// Ranges is a selection of addresses.
type Ranges struct {
	All  bool
	List []netip.Prefix
}

// Destination is a range of addresses on some ports only.
type Destination struct {
	Range netip.Prefix
	Ports []uint16
}

// Default intercepts everything, as Istio does without annotations.
func Default() Config {
	return Config{
		UID: 1337, GID: 1337,
		OutboundPort: 15001, InboundPort: 15006,
		Inbound: Ports{All: true},
		Include: Ranges{All: true},
	}
}

// Validate refuses what would leave the pod without network or in a loop.
func (c Config) Validate() error {
	var errs []error
	if c.OutboundPort == 0 || c.InboundPort == 0 || c.OutboundPort == c.InboundPort {
		errs = append(errs, fmt.Errorf("outbound port %d and inbound port %d must differ and not be 0", c.OutboundPort, c.InboundPort))
	}
	if c.UID == 0 || c.GID == 0 {
		errs = append(errs, errors.New("the proxy must not run as uid or gid 0: the application's root would pass as well"))
	}
	for _, d := range c.Exclude {
		if len(d.Ports) == 0 {
			errs = append(errs, fmt.Errorf("exclusion of %s names no port", d.Range))
		}
	}
	for _, i := range c.ExcludeInterfaces {
		if i == "" || len(i) > 15 || strings.ContainsAny(i, "\"/ \t\n") {
			errs = append(errs, fmt.Errorf("%q is no interface name", i))
		}
	}
	return errors.Join(errs...)
}

// ParsePorts reads "*", "" or a comma separated list, as Istio's annotations have it.
func ParsePorts(s string) (Ports, error) {
	if strings.TrimSpace(s) == All {
		return Ports{All: true}, nil
	}
	l, err := ParsePortList(s)
	return Ports{List: l}, err
}

// ParsePortList reads a comma separated list of ports, sorted and without doubles.
func ParsePortList(s string) ([]uint16, error) {
	var out []uint16
	for _, f := range fields(s) {
		n, err := strconv.ParseUint(f, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q is no port", f)
		}
		out = append(out, uint16(n))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// ParseRanges reads "*", "" or a comma separated list of CIDRs and addresses.
func ParseRanges(s string) (Ranges, error) {
	if strings.TrimSpace(s) == All {
		return Ranges{All: true}, nil
	}
	l, err := ParseRangeList(s)
	return Ranges{List: l}, err
}

// ParseRangeList reads a comma separated list of CIDRs and single addresses.
func ParseRangeList(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, f := range fields(s) {
		p, err := parseRange(f)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// ParseDestination reads CIDR:port,port; the CIDR has its length, so that the
// colons of IPv6 stay unambiguous.
func ParseDestination(s string) (Destination, error) {
	slash := strings.IndexByte(s, '/')
	colon := strings.LastIndexByte(s, ':')
	if slash < 0 || colon < slash {
		return Destination{}, fmt.Errorf("%q is not of the form CIDR:port,port", s)
	}
	p, err := parseRange(s[:colon])
	if err != nil {
		return Destination{}, err
	}
	ports, err := ParsePortList(s[colon+1:])
	if err != nil {
		return Destination{}, fmt.Errorf("ports of %q: %w", s, err)
	}
	if len(ports) == 0 {
		return Destination{}, fmt.Errorf("%q names no port", s)
	}
	return Destination{Range: p, Ports: ports}, nil
}

func parseRange(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is neither CIDR nor address", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is no CIDR", s)
	}
	return p.Masked(), nil
}

func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}
