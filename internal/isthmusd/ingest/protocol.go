// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// protocols by the names that ports and appProtocol use, lower case. What Istio
// knows but treats as bytes is TCP here.
func namedProtocol(name string) (model.Protocol, bool) {
	switch strings.ToLower(name) {
	case "http", "kubernetes.io/ws":
		return model.HTTP, true
	case "http2", "kubernetes.io/h2c":
		return model.HTTP2, true
	case "grpc", "grpc-web":
		return model.GRPC, true
	case "https", "kubernetes.io/wss":
		return model.HTTPS, true
	case "tls":
		return model.TLS, true
	case "tcp", "mongo", "mysql", "redis":
		return model.TCP, true
	case "udp":
		return model.UDP, true
	}
	return model.Auto, false
}

// portProtocol is Istio's rule for Service ports: UDP by the transport, then
// appProtocol, which silences the port's name, then the name up to its first
// dash. What is left is detected on the wire, except on ports of protocols in
// which the server speaks first (SMTP, DNS, MySQL, MongoDB; Istio's
// documentation, "Protocol Selection").
func portProtocol(number int32, name, transport string, app *string) model.Protocol {
	if transport == "UDP" {
		return model.UDP
	}
	if transport == "SCTP" {
		return model.Unused
	}
	if app != nil && *app != "" {
		if p, ok := namedProtocol(*app); ok {
			return p
		}
		return unnamed(number)
	}
	if name == "grpc-web" || strings.HasPrefix(name, "grpc-web-") {
		return model.GRPC
	}
	prefix, _, _ := strings.Cut(name, "-")
	if p, ok := namedProtocol(prefix); ok {
		return p
	}
	return unnamed(number)
}

func unnamed(number int32) model.Protocol {
	switch number {
	case 25, 53, 3306, 27017:
		return model.TCP
	}
	return model.Auto
}

// fqdn completes a host name as Istio does: a name without dots is a service of
// the object's own namespace.
func (c Converter) fqdn(host, ns string) string {
	if host == "" || strings.ContainsAny(host, ".*/:") {
		return host
	}
	return c.serviceHost(host, ns)
}

func (c Converter) serviceHost(name, ns string) string {
	return name + "." + ns + ".svc." + c.Topology.ClusterDomain
}
