// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func checkServiceEntry(c checker, s *networking.ServiceEntry) {
	checkEntryHosts(c.at("hosts"), s)
	checkEntryAddresses(c.at("addresses"), s)
	checkEntryPorts(c.at("ports"), s)
	checkResolution(c, s)
	checkExportTo(c.at("exportTo"), s.ExportTo)
	if s.WorkloadSelector != nil {
		if len(s.Endpoints) > 0 {
			c.at("workloadSelector").refuse("endpoints are listed too", "use one of the two")
		}
		checkLabels(c.at("workloadSelector").at("labels"), s.WorkloadSelector.Labels)
	}
	names := map[string]bool{}
	for _, p := range s.Ports {
		names[p.GetName()] = true
	}
	for i, e := range s.Endpoints {
		checkEndpoint(c.at("endpoints").index(i), e, s.Resolution, names)
	}
	for i, n := range s.SubjectAltNames {
		if n == "" {
			c.at("subjectAltNames").index(i).refuse("it must not be empty", "")
		}
	}
}

func checkEntryHosts(c checker, s *networking.ServiceEntry) {
	if len(s.Hosts) == 0 {
		c.refuse("there is none", "name the hosts of the service")
	}
	for i, h := range s.Hosts {
		at := c.index(i)
		switch fault := wildcardFault(h); {
		case h == "*":
			at.refuse(`"*" would take every host`, rightWildcard)
		case fault != "":
			at.refuse(fault, rightWildcard)
		case isWildcard(h) && resolvesHosts(s) && len(s.Endpoints) == 0:
			at.refuse(quote(h)+" cannot be resolved", "use resolution NONE or DYNAMIC_DNS, or list endpoints")
		case slices.Contains(s.Hosts[:i], h):
			at.refuse(quote(h)+" is there twice", "remove one")
		}
	}
}

// resolvesHosts tells whether the hosts themselves are looked up.
func resolvesHosts(s *networking.ServiceEntry) bool {
	return s.Resolution == networking.ServiceEntry_DNS || s.Resolution == networking.ServiceEntry_DNS_ROUND_ROBIN
}

func checkEntryAddresses(c checker, s *networking.ServiceEntry) {
	for i, a := range s.Addresses {
		at := c.index(i)
		p, ok := parseRange(a)
		switch {
		case !ok:
			at.refuse(quote(a)+" is not an address", rightRange)
		case !p.IsSingleIP() && s.Resolution != networking.ServiceEntry_NONE && s.Resolution != networking.ServiceEntry_STATIC:
			at.refuse(fmt.Sprintf("a range cannot stand for one service that is resolved by %s", s.Resolution), "use an address, or resolution NONE or STATIC")
		}
	}
}

func checkEntryPorts(c checker, s *networking.ServiceEntry) {
	if len(s.Ports) == 0 {
		c.warn("there is none, so the entry has no effect", "add the ports of the service")
	}
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for i, p := range s.Ports {
		at := c.index(i)
		if p == nil {
			at.refuse("it is empty", "use number, name and protocol")
			continue
		}
		checkPort(at.at("number"), p.Number)
		checkMatchPort(at.at("targetPort"), p.TargetPort)
		checkProtocol(at.at("protocol"), p.Protocol)
		if p.Name == "" {
			at.at("name").refuse("it is missing", "use a name such as https")
		}
		if names[p.Name] {
			at.at("name").refuse(quote(p.Name)+" is used by an earlier port", "use names that differ")
		}
		if numbers[p.Number] {
			at.at("number").refuse(fmt.Sprintf("%d is used by an earlier port", p.Number), "use numbers that differ")
		}
		names[p.Name], numbers[p.Number] = true, true
		if len(s.Addresses) == 0 && isOpaque(p.Protocol) && s.Resolution == networking.ServiceEntry_NONE {
			at.warn("without addresses it takes all connections to the port, whatever their destination", "add addresses, or use protocol TLS or HTTP")
		}
	}
}

// isOpaque tells whether only addresses distinguish services on the port.
func isOpaque(protocol string) bool {
	return slices.Contains([]string{"TCP", "MONGO", "MYSQL", "REDIS"}, strings.ToUpper(protocol))
}

func checkResolution(c checker, s *networking.ServiceEntry) {
	at, n := c.at("endpoints"), len(s.Endpoints)
	switch s.Resolution {
	case networking.ServiceEntry_NONE:
		if n > 0 {
			at.refuse("resolution NONE goes where the client dialled", "remove them, or use resolution STATIC or DNS")
		}
	case networking.ServiceEntry_STATIC:
		if n == 0 && s.WorkloadSelector == nil {
			at.refuse("resolution STATIC needs them", "list addresses, or add a workloadSelector")
		}
	case networking.ServiceEntry_DNS_ROUND_ROBIN:
		if n > 1 {
			at.refuse(fmt.Sprintf("resolution DNS_ROUND_ROBIN takes one, there are %d", n), "use resolution DNS")
		}
	case networking.ServiceEntry_DYNAMIC_DNS:
		checkDynamic(c, s)
	}
	if s.WorkloadSelector != nil && s.Resolution == networking.ServiceEntry_NONE {
		c.at("workloadSelector").refuse("resolution NONE goes where the client dialled", "use resolution STATIC")
	}
}

// checkDynamic is for hosts that each request names.
func checkDynamic(c checker, s *networking.ServiceEntry) {
	if len(s.Endpoints) > 0 || s.WorkloadSelector != nil {
		c.at("endpoints").refuse("resolution DYNAMIC_DNS goes to the host that each request names", "remove endpoints and workloadSelector")
	}
	if s.Location == networking.ServiceEntry_MESH_INTERNAL {
		c.at("location").refuse("resolution DYNAMIC_DNS is for hosts outside the mesh", "use MESH_EXTERNAL")
	}
	for i, p := range s.Ports {
		if t := p.GetTargetPort(); t != 0 && t != p.GetNumber() && isHTTP(p.GetProtocol()) && (p.GetNumber() != 80 || t != 443) {
			c.at("ports").index(i).at("targetPort").refuse(fmt.Sprintf("requests go to the port that they name, not to %d", t),
				"remove it; 443 for port 80 is possible, with a DestinationRule that begins TLS")
		}
		if isOpaque(p.GetProtocol()) {
			c.at("ports").index(i).at("protocol").refuse(quote(p.GetProtocol())+" names no host", "use HTTP, HTTPS or TLS")
		}
	}
}

// checkWorkloadEntry is for an endpoint on its own, which knows nothing of ports.
func checkWorkloadEntry(c checker, e *networking.WorkloadEntry) {
	checkEndpoint(c, e, networking.ServiceEntry_DNS, nil)
	if _, err := netip.ParseAddr(e.Address); err != nil && hostFault(e.Address) == "" {
		c.at("address").warn("host names are not looked up, so the entry has no effect", "use an IP address")
	}
}

// checkEndpoint knows the names of the service's ports, unless they are nil.
func checkEndpoint(c checker, e *networking.WorkloadEntry, r networking.ServiceEntry_Resolution, names map[string]bool) {
	if e == nil {
		c.refuse("it is empty", "give an address")
		return
	}
	at := c.at("address")
	path, unix := strings.CutPrefix(e.Address, "unix://")
	_, err := netip.ParseAddr(e.Address)
	switch {
	case unix && r != networking.ServiceEntry_STATIC:
		at.refuse("a socket needs resolution STATIC", "")
	case unix && !strings.HasPrefix(path, "/"):
		at.refuse(quote(e.Address)+" is not an absolute path", "use unix:///path")
	case unix && len(e.Ports) > 0:
		c.at("ports").refuse("a socket has no ports", "remove them")
	case unix || err == nil:
	case e.Address == "" && e.Network != "":
	case r == networking.ServiceEntry_STATIC:
		at.refuse(quote(e.Address)+" is not an address", "use an IP address, or resolution DNS")
	default:
		if fault := hostFault(e.Address); fault != "" {
			at.refuse(fault, rightHost)
		}
	}
	for _, n := range sortedKeys(e.Ports) {
		checkPort(c.at("ports").key(n), e.Ports[n])
		if names != nil && !names[n] {
			c.at("ports").key(n).refuse("the entry has no port of that name", "use a name from spec.ports")
		}
	}
	checkLabels(c.at("labels"), e.Labels)
	checkLocality(c.at("locality"), e.Locality)
}
