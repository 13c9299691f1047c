// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Names that Istio's tools look for; see the wire contract.
const (
	blackHoleCluster   = "BlackHoleCluster"
	passthroughCluster = "PassthroughCluster"
	inboundPassthrough = "InboundPassthroughCluster"
	virtualOutbound    = "virtualOutbound"
	virtualInbound     = "virtualInbound"

	outboundPort = 15001
	inboundPort  = 15006

	anyIPv4 = "0.0.0.0"
	anyIPv6 = "::"
)

// subsetKey is what a cluster's name says.
type subsetKey struct {
	port   uint32
	subset string
	host   string
}

func compareKeys(a, b subsetKey) int {
	return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.port, b.port), cmp.Compare(a.subset, b.subset))
}

// outboundCluster is the name of a cluster, and of its endpoints' assignment.
func outboundCluster(port uint32, subset, host string) string {
	return "outbound|" + strconv.FormatUint(uint64(port), 10) + "|" + subset + "|" + host
}

// parseOutbound reads what outboundCluster wrote.
func parseOutbound(name string) (subsetKey, bool) {
	parts := strings.SplitN(name, "|", 4)
	if len(parts) != 4 || parts[0] != "outbound" {
		return subsetKey{}, false
	}
	port, ok := parsePort(parts[1])
	return subsetKey{port: port, subset: parts[2], host: parts[3]}, ok
}

func inboundCluster(port uint32) string { return fmt.Sprintf("inbound|%d||", port) }

func parseInbound(name string) (uint32, bool) {
	rest, ok := strings.CutPrefix(name, "inbound|")
	if !ok {
		return 0, false
	}
	rest, ok = strings.CutSuffix(rest, "||")
	if !ok {
		return 0, false
	}
	return parsePort(rest)
}

// meshSNI is the name that a client asks for in mesh TLS.
func meshSNI(k subsetKey) string {
	return fmt.Sprintf("outbound_.%d_.%s_.%s", k.port, k.subset, k.host)
}

func listenerName(ip string, port uint32) string { return fmt.Sprintf("%s_%d", ip, port) }

// parseListener reads "<address>_<port>".
func parseListener(name string) (ip string, port uint32, ok bool) {
	i := strings.LastIndexByte(name, '_')
	if i < 0 {
		return "", 0, false
	}
	ip = name[:i]
	if _, err := netip.ParseAddr(ip); err != nil {
		return "", 0, false
	}
	port, ok = parsePort(name[i+1:])
	return ip, port, ok
}

func parsePort(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint32(n), err == nil && n > 0
}

// fullName gives a short host the namespace of the object that mentions it.
func fullName(host, namespace, clusterDomain string) string {
	if host == "" || strings.ContainsAny(host, ".*") {
		return strings.ToLower(host)
	}
	return strings.ToLower(host) + "." + namespace + ".svc." + clusterDomain
}

// covers tells whether a host, possibly a wildcard, stands for another, which
// may be a wildcard too.
func covers(pattern, host string) bool {
	if pattern == host || pattern == "*" {
		return true
	}
	return strings.HasPrefix(pattern, "*") && strings.HasSuffix(host, pattern[1:]) && len(host) > len(pattern)-1
}
