// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func checkSidecar(c checker, s *networking.Sidecar) {
	checkLabels(c.at("workloadSelector").at("labels"), s.GetWorkloadSelector().GetLabels())
	if s.WorkloadSelector != nil && len(s.WorkloadSelector.Labels) == 0 {
		c.at("workloadSelector").at("labels").refuse("there is none", "name labels, or leave workloadSelector out for the whole namespace")
	}
	if len(s.Ingress) == 0 && len(s.Egress) == 0 && s.OutboundTrafficPolicy == nil && s.InboundConnectionPool == nil {
		c.warn("it changes nothing", "add egress, ingress or outboundTrafficPolicy")
	}
	checkIngress(c.at("ingress"), s.Ingress)
	checkEgress(c.at("egress"), s.Egress)
	checkPool(c.at("inboundConnectionPool"), s.InboundConnectionPool)
	if p := s.OutboundTrafficPolicy; p != nil && p.EgressProxy != nil {
		checkDestination(c.at("outboundTrafficPolicy").at("egressProxy"), p.EgressProxy)
		if p.Mode != networking.OutboundTrafficPolicy_ALLOW_ANY {
			c.at("outboundTrafficPolicy").at("egressProxy").refuse("it is for traffic that mode ALLOW_ANY lets through", "use mode ALLOW_ANY")
		}
	}
}

func checkIngress(c checker, listeners []*networking.IstioIngressListener) {
	ports := map[uint32]bool{}
	for i, l := range listeners {
		at := c.index(i)
		if l.GetPort() == nil {
			at.at("port").refuse("it is missing", "use number, name and protocol")
			continue
		}
		checkSidecarPort(at.at("port"), l.Port)
		if ports[l.Port.Number] {
			at.at("port").at("number").refuse(fmt.Sprintf("%d is used by an earlier listener", l.Port.Number), "use ports that differ")
		}
		ports[l.Port.Number] = true
		if l.Bind != "" && addressFault(l.Bind) != "" {
			at.at("bind").refuse(addressFault(l.Bind), "use an address of the pod")
		}
		checkDefaultEndpoint(at.at("defaultEndpoint"), l.DefaultEndpoint)
		checkPool(at.at("connectionPool"), l.ConnectionPool)
		if l.Tls != nil {
			checkIngressTLS(at.at("tls"), l)
		}
	}
}

func checkIngressTLS(c checker, l *networking.IstioIngressListener) {
	if l.Tls.HttpsRedirect {
		c.at("httpsRedirect").refuse("a sidecar does not redirect", "remove it")
	}
	if l.Tls.CredentialName != "" || len(l.Tls.CredentialNames) > 0 {
		c.at("credentialName").refuse("sidecars read no Secrets", "mount the files, and set serverCertificate and privateKey")
		return
	}
	if l.Tls.Mode == networking.ServerTLSSettings_SIMPLE || l.Tls.Mode == networking.ServerTLSSettings_MUTUAL {
		checkServerSettings(c, l.Tls)
		return
	}
	c.at("mode").refuse(fmt.Sprintf("%s is not for sidecars", l.Tls.Mode), "use SIMPLE or MUTUAL")
}

func checkSidecarPort(c checker, p *networking.SidecarPort) {
	checkPort(c.at("number"), p.Number)
	checkProtocol(c.at("protocol"), p.Protocol)
}

// checkDefaultEndpoint takes the places inside the pod that a sidecar may forward to.
func checkDefaultEndpoint(c checker, e string) {
	if e == "" {
		return
	}
	const right = "use 127.0.0.1:port, [::1]:port, 0.0.0.0:port or [::]:port (the pod's own address), or unix:///path"
	if path, ok := strings.CutPrefix(e, "unix://"); ok {
		if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
			c.refuse(quote(e)+" is not an absolute path", right)
		}
		return
	}
	ap, err := netip.ParseAddrPort(e)
	if err != nil || ap.Port() == 0 || !slices.Contains([]string{"127.0.0.1", "::1", "0.0.0.0", "::"}, ap.Addr().String()) {
		c.refuse(quote(e)+" is not inside the pod", right)
	}
}

func checkEgress(c checker, listeners []*networking.IstioEgressListener) {
	seen := map[string]bool{}
	for i, l := range listeners {
		at := c.index(i)
		if l == nil {
			at.refuse("it is empty", "add hosts")
			continue
		}
		if l.Port == nil {
			if l.Bind != "" {
				at.at("bind").refuse("a listener without port has no address of its own", "add a port, or remove bind")
			}
			if i != len(listeners)-1 {
				at.refuse("a listener without port takes what others leave", "put it last")
			}
		} else {
			checkEgressPort(at, l, seen)
		}
		if len(l.Hosts) == 0 {
			at.at("hosts").refuse("there is none", `use namespace/host, such as "./*"`)
		}
		checkEgressHosts(at.at("hosts"), l.Hosts)
	}
}

func checkEgressPort(c checker, l *networking.IstioEgressListener, seen map[string]bool) {
	unix := strings.HasPrefix(l.Bind, "unix://")
	switch {
	case unix && l.Port.Number != 0:
		c.at("port").at("number").refuse("a socket has no port", "use 0")
	case unix && l.CaptureMode != networking.CaptureMode_DEFAULT && l.CaptureMode != networking.CaptureMode_NONE:
		c.at("captureMode").refuse("what goes to a socket is not redirected", "use NONE")
	case !unix:
		checkPort(c.at("port").at("number"), l.Port.Number)
		if l.Bind != "" && addressFault(l.Bind) != "" {
			c.at("bind").refuse(addressFault(l.Bind), "use an address, or unix:///path")
		}
	}
	checkProtocol(c.at("port").at("protocol"), l.Port.Protocol)
	key := l.Bind + " " + strconv.FormatUint(uint64(l.Port.Number), 10)
	if seen[key] {
		c.at("port").refuse("an earlier listener has the same port and bind", "join the two")
	}
	seen[key] = true
}

func checkEgressHosts(c checker, hosts []string) {
	for i, h := range hosts {
		at := c.index(i)
		ns, host, ok := strings.Cut(h, "/")
		switch {
		case !ok:
			at.refuse(quote(h)+" names no namespace", `use namespace/host, such as "./*" or "*/api.example.com"`)
			continue
		case ns != "*" && ns != "." && ns != "~" && !name.MatchString(ns):
			at.refuse(quote(ns)+" is not a namespace", `use ".", "*", "~" or the name of a namespace before the slash`)
		case ns == "~" && host != "*":
			at.refuse(`"~" means nothing at all`, `use "~/*"`)
		case slices.Contains(hosts[:i], h):
			at.refuse(quote(h)+" is there twice", "remove one")
		}
		if fault := wildcardFault(host); fault != "" {
			at.refuse(fault, rightWildcard)
		}
	}
}
