// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package journey

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed cast.yaml
var cast string

// rogue is a pod that tries to get out in a way of its own.
type rogue struct {
	name        string
	namespace   string
	account     string
	labels      map[string]string
	annotations map[string]string
	// uid to run as; 65532 unless told.
	uid int
}

// The callers. All run the same image; they differ in what they claim for themselves.
var rogues = []rogue{
	{name: "client", namespace: Shop, account: "client"},
	{name: "stranger", namespace: Strangers},
	{name: "uid-1337", namespace: Shop, uid: 1337},
	{name: "excluded-range", namespace: Shop, annotations: map[string]string{"traffic.sidecar.istio.io/excludeOutboundIPRanges": "OTHER/32"}},
	{name: "excluded-port", namespace: Shop, annotations: map[string]string{"traffic.sidecar.istio.io/excludeOutboundPorts": "80,9000"}},
	{name: "opted-out", namespace: Shop, labels: map[string]string{"sidecar.istio.io/inject": "false"}},
	{name: "reporter", namespace: Shop, labels: map[string]string{"egress": "direct"}},
}

// Scene is what differs between clusters: where the outside is, and how a name
// out there becomes an address.
type Scene struct {
	// Addresses of the outside hosts by name.
	Addresses map[string]string
	// Names is true where the cluster's DNS knows the outside hosts; else callers
	// get host aliases, and the ServiceEntry lists the address.
	Names bool
	// Service is the type of the ingress gateway's Service.
	Service string
}

// Manifest renders everybody who takes part.
func (s Scene) Manifest() string {
	var b strings.Builder
	resolution := "resolution: DNS"
	if !s.Names {
		resolution = fmt.Sprintf("resolution: STATIC\n  endpoints: [{address: %s}]", s.Addresses[allowed])
	}
	b.WriteString(strings.ReplaceAll(cast, "resolution: DNS", resolution))
	for _, r := range rogues {
		b.WriteString(strings.ReplaceAll(r.manifest(s.aliases()), "OTHER", s.Addresses[other]))
	}
	return b.String()
}

func (s Scene) aliases() string {
	if s.Names {
		return ""
	}
	return fmt.Sprintf("\n      hostAliases: [{ip: %s, hostnames: [%s]}, {ip: %s, hostnames: [%s]}]",
		s.Addresses[allowed], hostname(allowed), s.Addresses[other], hostname(other))
}

func (r rogue) manifest(aliases string) string {
	account, uid := "default", 65532
	if r.account != "" {
		account = r.account
	}
	if r.uid != 0 {
		uid = r.uid
	}
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata:
      labels: {app: %[1]s%[3]s}
      annotations: {%[4]s}
    spec:
      serviceAccountName: %[5]s%[7]s
      terminationGracePeriodSeconds: 2
      containers:
      - name: app
        image: isthmus/testapp:0.1.0
        imagePullPolicy: IfNotPresent
        args: [pause]
        securityContext: {runAsUser: %[6]d, runAsGroup: %[6]d}
`, r.name, r.namespace, pairs(r.labels, ", "), strings.TrimPrefix(pairs(r.annotations, ", "), ", "), account, uid, aliases)
}

func pairs(m map[string]string, sep string) string {
	var b strings.Builder
	for k, v := range m {
		fmt.Fprintf(&b, "%s%s: %q", sep, k, v)
	}
	return b.String()
}

// logFormat is what the proxies log here: short, and with the caller's identity.
const logFormat = "%START_TIME% %REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% route=%ROUTE_NAME% " +
	"%UPSTREAM_CLUSTER% %UPSTREAM_HOST% from=%DOWNSTREAM_REMOTE_ADDRESS% peer=%DOWNSTREAM_PEER_URI_SAN%\n"

// Topology is the one object that a person writes. Only spec.topology differs
// between the three: the reporter's way out stands in all of them.
func (s Scene) Topology(kind string) string {
	return fmt.Sprintf(`apiVersion: isthmus.dev/v1alpha1
kind: MeshTopology
metadata: {name: default}
spec:
  topology: %s
  mtls: Strict
  ingress:
    gateways: [{name: ingress, service: {type: %s}}]
  egress:
    bypass:
    - name: reports
      cidr: %s/32
      ports: [9000]
      podSelector: {matchLabels: {egress: direct}}
    guard:
      exemptions:
      - name: rogues
        namespace: shop
        serviceAccount: default
        allow: [ProxyUser, ProxyKeys, OptOut]
        reason: They show that the wall holds those whom the guard would refuse.
        expires: "2099-12-31T00:00:00Z"
  telemetry:
    accessLog:
      format: %q
`, kind, s.Service, s.Addresses[other], logFormat)
}
