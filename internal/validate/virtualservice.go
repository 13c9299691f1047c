// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// meshGateway is the name that stands for all sidecars.
const meshGateway = "mesh"

func checkVirtualService(c checker, v *networking.VirtualService) {
	if len(v.Hosts) == 0 {
		checkDelegated(c, v)
		return
	}
	inMesh := len(v.Gateways) == 0 || slices.Contains(v.Gateways, meshGateway)
	checkVirtualHosts(c.at("hosts"), v.Hosts, inMesh)
	checkGatewayNames(c.at("gateways"), v.Gateways)
	checkExportTo(c.at("exportTo"), v.ExportTo)
	if len(v.Http)+len(v.Tls)+len(v.Tcp) == 0 {
		c.refuse("it has no routes", "add http, tls or tcp")
	}
	checkHTTPRoutes(c.at("http"), v.Http)
	for i, r := range v.Tls {
		checkTLSRoute(c.at("tls").index(i), r, v.Hosts)
	}
	for i, r := range v.Tcp {
		checkTCPRoute(c.at("tcp").index(i), r)
	}
}

// checkDelegated is for a VirtualService without hosts, which others delegate to.
func checkDelegated(c checker, v *networking.VirtualService) {
	if len(v.Gateways) > 0 {
		c.at("gateways").refuse("there are no hosts, so others delegate to it, and they say which gateways", "remove gateways, or add hosts")
	}
	if len(v.Tls) > 0 || len(v.Tcp) > 0 {
		c.refuse("there are no hosts, so others delegate to it, and they can delegate HTTP only", "move tls and tcp to the VirtualService with the hosts")
	}
	if len(v.Http) == 0 {
		c.at("http").refuse("it has neither hosts nor routes", "add hosts and routes")
	}
	for i, r := range v.Http {
		if r.GetDelegate() != nil {
			c.at("http").index(i).at("delegate").refuse("what others delegate to cannot delegate further", "route from here")
		}
	}
	checkExportTo(c.at("exportTo"), v.ExportTo)
	checkHTTPRoutes(c.at("http"), v.Http)
}

func checkVirtualHosts(c checker, hosts []string, inMesh bool) {
	for i, h := range hosts {
		at := c.index(i)
		fault := wildcardFault(h)
		switch {
		case h == "*" && inMesh:
			at.refuse(`sidecars cannot take "*"`, "name the hosts, or bind it to gateways only")
		case fault != "" && addressFault(h) != "":
			at.refuse(fault, rightWildcard)
		case slices.ContainsFunc(hosts[:i], func(o string) bool { return strings.EqualFold(o, h) }):
			at.refuse(quote(h)+" is there twice", "remove one")
		}
	}
}

func checkGatewayNames(c checker, gateways []string) {
	for i, g := range gateways {
		if g == meshGateway {
			continue
		}
		ns, gateway, ok := strings.Cut(g, "/")
		if !ok {
			gateway = g
		}
		if ok && ns != "." && !name.MatchString(ns) || !objectName.MatchString(gateway) {
			c.index(i).refuse(quote(g)+" does not name a gateway", "use name, namespace/name or mesh")
		}
	}
}

func checkTLSRoute(c checker, r *networking.TLSRoute, hosts []string) {
	if len(r.GetMatch()) == 0 {
		c.at("match").refuse("there is none", "add a match with sniHosts")
	}
	for i, m := range r.GetMatch() {
		at := c.at("match").index(i)
		if len(m.GetSniHosts()) == 0 {
			at.at("sniHosts").refuse("there is none", "name the hosts that clients ask for")
		}
		for j, sni := range m.GetSniHosts() {
			checkSNI(at.at("sniHosts").index(j), sni, hosts)
		}
		checkL4(at, l4{m.GetDestinationSubnets(), m.GetPort(), m.GetSourceLabels(), m.GetGateways(), m.GetSourceNamespace()})
	}
	checkRoutes(c.at("route"), r.GetRoute())
}

func checkSNI(c checker, sni string, hosts []string) {
	if fault := wildcardFault(sni); fault != "" {
		c.refuse(fault, rightWildcard)
		return
	}
	if !slices.ContainsFunc(hosts, func(h string) bool { return covers(h, sni) }) {
		c.refuse(quote(sni)+" is not among the hosts", "add it to hosts, or a wildcard that covers it")
	}
}

func checkTCPRoute(c checker, r *networking.TCPRoute) {
	for i, m := range r.GetMatch() {
		at := c.at("match").index(i)
		checkL4(at, l4{m.GetDestinationSubnets(), m.GetPort(), m.GetSourceLabels(), m.GetGateways(), m.GetSourceNamespace()})
		if s := m.GetSourceSubnet(); s != "" {
			at.at("sourceSubnet").warn("it is deprecated and has no effect", "remove it")
		}
	}
	checkRoutes(c.at("route"), r.GetRoute())
}

// l4 is what matches of TLS and TCP have in common.
type l4 struct {
	subnets         []string
	port            uint32
	sourceLabels    map[string]string
	gateways        []string
	sourceNamespace string
}

func checkL4(c checker, m l4) {
	for i, s := range m.subnets {
		if _, ok := parseRange(s); !ok {
			c.at("destinationSubnets").index(i).refuse(quote(s)+" is not a range", rightRange)
		}
	}
	checkMatchPort(c.at("port"), m.port)
	checkLabels(c.at("sourceLabels"), m.sourceLabels)
	checkGatewayNames(c.at("gateways"), m.gateways)
	checkNamespace(c.at("sourceNamespace"), m.sourceNamespace)
}

// checkMatchPort allows 0, which means every port.
func checkMatchPort(c checker, n uint32) {
	if n != 0 {
		checkPort(c, n)
	}
}

func checkNamespace(c checker, ns string) {
	if ns != "" && !name.MatchString(ns) {
		c.refuse(quote(ns)+" is not a namespace", "use the name of a namespace")
	}
}

// checkRoutes checks the destinations of TLS and TCP routes.
func checkRoutes(c checker, routes []*networking.RouteDestination) {
	if len(routes) == 0 {
		c.refuse("there is none", "add a destination")
	}
	weights := make([]int32, 0, len(routes))
	for i, r := range routes {
		checkDestination(c.index(i).at("destination"), r.GetDestination())
		weights = append(weights, r.GetWeight())
	}
	checkWeights(c, weights)
}

func checkDestination(c checker, d *networking.Destination) {
	if d == nil {
		c.refuse("it is missing", "name the host to go to")
		return
	}
	switch fault := wildcardFault(d.Host); {
	case d.Host == "*":
		c.at("host").refuse(`"*" is no place to go to`, rightHost)
	case fault != "":
		c.at("host").refuse(fault, rightHost)
	}
	if d.Subset != "" && !subsetName.MatchString(d.Subset) {
		c.at("subset").refuse(quote(d.Subset)+" is not the name of a subset", "use letters, digits and dashes")
	}
	checkSelector(c.at("port"), d.Port)
}

// checkWeights wants no weight below 0 and, among several, one above.
func checkWeights(c checker, weights []int32) {
	var total int64
	for i, w := range weights {
		if w < 0 {
			c.index(i).at("weight").refuse(fmt.Sprintf("%d is below 0", w), "use 0 or more")
		}
		total += int64(w)
	}
	if len(weights) > 1 && total == 0 {
		c.refuse("all weights are 0, so nothing goes anywhere", "give at least one destination a weight")
	}
	if total > 1<<32-1 {
		c.refuse(fmt.Sprintf("the weights sum up to %d", total), "use smaller ones")
	}
}
