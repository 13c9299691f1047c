// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func checkGateway(c checker, g *networking.Gateway) {
	if len(g.Servers) == 0 {
		c.at("servers").refuse("there is none", "add at least one server with port and hosts")
	}
	if len(g.Selector) == 0 {
		c.at("selector").warn("it is empty, so that every gateway in reach serves this", "select one by its labels, such as istio: ingressgateway")
	}
	checkLabels(c.at("selector"), g.Selector)
	names, ports := map[string]bool{}, map[string]bool{}
	for i, s := range g.Servers {
		at := c.at("servers").index(i)
		if s == nil {
			at.refuse("it is empty", "add port and hosts")
			continue
		}
		checkServer(at, s)
		if s.Name != "" && names[s.Name] {
			at.at("name").refuse(quote(s.Name)+" is used by an earlier server", "use names that differ")
		}
		names[s.Name] = true
		if p := s.Port.GetName(); p != "" && ports[p] {
			at.at("port").at("name").refuse(quote(p)+" is used by an earlier server", "use names that differ")
		}
		ports[s.Port.GetName()] = true
	}
}

func checkServer(c checker, s *networking.Server) {
	checkServerPort(c.at("port"), s.Port)
	if len(s.Hosts) == 0 {
		c.at("hosts").refuse("there is none", `use the hosts that are served, or "*"`)
	}
	for i, h := range s.Hosts {
		checkServerHost(c.at("hosts").index(i), h)
		if slices.Contains(s.Hosts[:i], h) {
			c.at("hosts").index(i).refuse(quote(h)+" is there twice", "remove one")
		}
	}
	if s.Bind != "" && !strings.HasPrefix(s.Bind, "unix://") {
		if fault := addressFault(s.Bind); fault != "" {
			c.at("bind").refuse(fault, "use an address of the gateway's pod, such as 0.0.0.0")
		}
	}
	if s.Port == nil {
		return
	}
	checkServerTLS(c.at("tls"), s)
}

func checkServerPort(c checker, p *networking.Port) {
	if p == nil {
		c.refuse("it is missing", "use number, name and protocol")
		return
	}
	checkPort(c.at("number"), p.Number)
	if p.Name == "" {
		c.at("name").refuse("it is missing", "use a name such as https")
	}
	if p.Protocol == "" {
		c.at("protocol").refuse("it is missing", "use one of "+strings.Join(protocols(), ", "))
	}
	checkProtocol(c.at("protocol"), p.Protocol)
	if strings.EqualFold(p.Protocol, "UDP") {
		c.at("protocol").refuse("a gateway does not forward UDP", "")
	}
}

// checkServerHost takes host or namespace/host.
func checkServerHost(c checker, h string) {
	ns, host, ok := strings.Cut(h, "/")
	if !ok {
		ns, host = "*", h
	}
	if ns != "*" && ns != "." && !name.MatchString(ns) {
		c.refuse(quote(ns)+" is not a namespace", `use ".", "*" or the name of a namespace before the slash`)
	}
	if fault := wildcardFault(host); fault != "" && addressFault(host) != "" {
		c.refuse(fault, rightWildcard)
	}
}

// checkServerTLS pairs the port's protocol with the settings.
func checkServerTLS(c checker, s *networking.Server) {
	protocol := s.Port.Protocol
	switch {
	case isTLS(protocol) && s.Tls == nil:
		c.refuse("it is missing although the port speaks "+protocol, "set mode and credentialName, or mode PASSTHROUGH")
	case s.Tls == nil:
	case isHTTP(protocol):
		if !onlyRedirects(s.Tls) {
			c.refuse("a port that speaks "+protocol+" has no TLS", "use protocol HTTPS, or only httpsRedirect: true")
		}
	case !isTLS(protocol):
		c.refuse("a port that speaks "+protocol+" has no TLS", "use protocol TLS")
	case s.Tls.HttpsRedirect:
		c.at("httpsRedirect").refuse("there is nothing to redirect on a port that speaks "+protocol, "use it on a port that speaks HTTP")
	default:
		checkServerSettings(c, s.Tls)
	}
}

func onlyRedirects(t *networking.ServerTLSSettings) bool {
	return t.HttpsRedirect && t.Mode == networking.ServerTLSSettings_PASSTHROUGH && t.CredentialName == "" &&
		t.ServerCertificate == "" && t.PrivateKey == "" && t.CaCertificates == ""
}

// checkServerSettings checks what a server shows and asks for. Sidecar ingress uses
// it too.
func checkServerSettings(c checker, t *networking.ServerTLSSettings) {
	switch t.Mode {
	case networking.ServerTLSSettings_SIMPLE, networking.ServerTLSSettings_MUTUAL, networking.ServerTLSSettings_OPTIONAL_MUTUAL:
		checkServerCredentials(c, t)
	default:
		if hasCredentials(t) {
			c.warn(fmt.Sprintf("certificates are not used in mode %s", t.Mode), "remove them, or use mode SIMPLE or MUTUAL")
		}
	}
	if t.MaxProtocolVersion != networking.ServerTLSSettings_TLS_AUTO && t.MinProtocolVersion > t.MaxProtocolVersion {
		c.at("minProtocolVersion").refuse(fmt.Sprintf("%s is above the maximum %s", t.MinProtocolVersion, t.MaxProtocolVersion), "")
	}
	for i, s := range t.CipherSuites {
		if slices.Contains(t.CipherSuites[:i], s) {
			c.at("cipherSuites").index(i).warn(quote(s)+" is there twice", "remove one")
		}
	}
	if len(t.SubjectAltNames) > 0 && t.Mode == networking.ServerTLSSettings_SIMPLE {
		c.at("subjectAltNames").refuse("mode SIMPLE asks for no client certificate, so there is none whose names could be checked", "use mode MUTUAL")
	}
}

func hasCredentials(t *networking.ServerTLSSettings) bool {
	return t.CredentialName != "" || len(t.CredentialNames) > 0 || t.ServerCertificate != "" || t.PrivateKey != "" || len(t.TlsCertificates) > 0
}

func checkServerCredentials(c checker, t *networking.ServerTLSSettings) {
	if t.CredentialName != "" && len(t.CredentialNames) > 0 {
		c.at("credentialNames").refuse("credentialName is set too", "use one of the two")
	}
	if t.CredentialName != "" || len(t.CredentialNames) > 0 {
		if t.ServerCertificate != "" || t.PrivateKey != "" {
			c.at("serverCertificate").warn("files are not used when there is a credential", "remove serverCertificate and privateKey")
		}
		for i, n := range t.CredentialNames {
			if n == "" || slices.Contains(t.CredentialNames[:i], n) {
				c.at("credentialNames").index(i).refuse(quote(n)+" is empty or there twice", "use names of Secrets that differ")
			}
		}
		return
	}
	mutual := t.Mode != networking.ServerTLSSettings_SIMPLE
	if len(t.TlsCertificates) > 0 {
		for i, f := range t.TlsCertificates {
			checkFiles(c.at("tlsCertificates").index(i), f.GetServerCertificate(), f.GetPrivateKey())
		}
	} else {
		checkFiles(c, t.ServerCertificate, t.PrivateKey)
	}
	if mutual && t.CaCertificates == "" && t.CaCertCredentialName == "" {
		c.at("caCertificates").refuse(fmt.Sprintf("it is missing in mode %s", t.Mode), "use a credentialName whose Secret has ca.crt, or a file")
	}
}

func checkFiles(c checker, cert, key string) {
	if cert == "" {
		c.at("serverCertificate").refuse("it is missing", "set credentialName, or serverCertificate and privateKey")
	}
	if key == "" {
		c.at("privateKey").refuse("it is missing", "set credentialName, or serverCertificate and privateKey")
	}
}
