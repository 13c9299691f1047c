// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package guard keeps pods of members from exempting themselves from topology
// EgressGateway, by ValidatingAdmissionPolicies. It is pure: a topology's facts
// in, policies and bindings out.
//
// The rules are written once, in CEL, as lists of what breaks them. The API server
// evaluates them for pods after injection; for workload templates it warns of the
// same; and the operator evaluates them for pods that were there before (Judge).
package guard

import (
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/inject"
)

// rule is one of the guard's.
type rule struct {
	name v1alpha1.GuardRule
	// offenders is a CEL list of what in a pod breaks the rule.
	offenders string
	// fix says what to do about it.
	fix string
	// debug is set where ephemeral containers can break the rule too.
	debug bool
}

// rules in the order of topologies.md. They see variables.spec, meta, annotations,
// labels, inits, all (containers and init containers), proxies and others.
func rules(facts Facts) []rule {
	user := strconv.Itoa(inject.UID)
	return []rule{
		{
			name: v1alpha1.RuleHostNetwork, offenders: flag("hostNetwork"),
			fix: "a pod on the node's network has no proxy and no NetworkPolicy: remove it",
		},
		{
			name: v1alpha1.RuleHostPID, offenders: flag("hostPID"),
			fix: "the node's processes would be in reach: remove it",
		},
		{
			name: v1alpha1.RuleHostIPC, offenders: flag("hostIPC"),
			fix: "the node's memory would be in reach: remove it",
		},
		{
			name: v1alpha1.RuleShareProcessNamespace, offenders: flag("shareProcessNamespace"),
			fix: "the proxy's processes and keys would be in reach: remove it",
		},
		{
			name:      v1alpha1.RuleHostPath,
			offenders: `variables.spec.?volumes.orValue([]).filter(v, has(v.hostPath)).map(v, 'volume ' + v.name)`,
			fix:       "the node's files would be in reach: use another kind of volume than hostPath",
		},
		{
			name:      v1alpha1.RuleHostPorts,
			offenders: containers("all", `c.?ports.orValue([]).exists(p, p.?hostPort.orValue(0) != 0)`),
			fix:       "a port on the node is another way in than the mesh's: remove hostPort and use a Service",
		},
		{
			name:      v1alpha1.RulePrivileged,
			offenders: containers("others", `c.?securityContext.?privileged.orValue(false) || c.?securityContext.?windowsOptions.?hostProcess.orValue(false)`),
			fix:       "a privileged container can lead its traffic around the proxy: remove privileged", debug: true,
		},
		{
			name:      v1alpha1.RuleCapabilities,
			offenders: containers("others", `size(c.?securityContext.?capabilities.?add.orValue([])) > 0`),
			fix:       "added capabilities can lead traffic around the proxy: remove capabilities.add", debug: true,
		},
		{
			name: v1alpha1.RuleProxyUser,
			offenders: containers("others", `c.?securityContext.?runAsUser.orValue(0) == `+user+` || c.?securityContext.?runAsGroup.orValue(0) == `+user) +
				` + (variables.creating && (variables.spec.?securityContext.?runAsUser.orValue(0) == ` + user +
				` || variables.spec.?securityContext.?runAsGroup.orValue(0) == ` + user +
				` || variables.spec.?securityContext.?fsGroup.orValue(0) == ` + user +
				` || ` + user + ` in variables.spec.?securityContext.?supplementalGroups.orValue([])) ? ['spec.securityContext'] : [])`,
			fix: "what runs as user or group " + user + " is taken for the proxy and not redirected: use another id", debug: true,
		},
		{
			name:      v1alpha1.RuleProxyVolumes,
			offenders: containers("others", `c.?volumeMounts.orValue([]).exists(m, m.name in `+list(facts.rendered.volumeNames())+`)`),
			fix:       "the proxy's keys and settings are in that volume: do not mount it", debug: true,
		},
		{
			name: v1alpha1.RuleProxyKeys, offenders: proxyKeys,
			fix: "the annotation leads traffic around the proxy or changes what the proxy is: remove it; for direct ways out there is spec.egress.bypass of the MeshTopology",
		},
		{
			name: v1alpha1.RuleOptOut, offenders: optOut(facts),
			fix: "without its proxy the pod reaches nothing outside the mesh: remove it",
		},
	}
}

// proxyKeys lists annotations that change what is intercepted, or the proxy.
const proxyKeys = `variables.annotations.filter(k, k.startsWith('traffic.sidecar.istio.io/exclude')` +
	` || k.startsWith('sidecar.istio.io/userVolume') || k.startsWith('sidecar.istio.io/proxyImage') || k == 'sidecar.istio.io/bootstrapOverride'` +
	` || (k.startsWith('traffic.sidecar.istio.io/includeOutbound') && variables.annotations[k] != '*')` +
	` || (k == 'sidecar.istio.io/interceptionMode' && variables.annotations[k] != 'REDIRECT')).map(k, 'annotation ' + k)`

// optOut lists what keeps a proxy, or its interception, out of the pod: the key
// that says so; a revision of somebody else's on a pod that has no proxy; and the
// template of a gateway beside an application.
func optOut(f Facts) string {
	no := `['false', 'no', 'n', 'off']`
	return `(variables.labels[?'sidecar.istio.io/inject'].orValue('').lowerAscii() in ` + no + ` ? ['label sidecar.istio.io/inject'] : [])` +
		` + (variables.annotations[?'sidecar.istio.io/inject'].orValue('').lowerAscii() in ` + no + ` ? ['annotation sidecar.istio.io/inject'] : [])` +
		` + (size(variables.proxies) == 0 && !(variables.labels[?'istio.io/rev'].orValue(` + quote(f.Topology) + `) in [` + quote(f.Topology) + `, ` + quote(f.Revision) + `])` +
		` ? ['label istio.io/rev'] : [])` +
		` + (size(variables.proxies) > 0 && size(variables.others) > 0 && !variables.inits.exists(c, c.name == '` + inject.InitContainer + `')` +
		` ? ['annotation inject.istio.io/templates'] : [])`
}

// flag lists a boolean field of the pod that is set.
func flag(field string) string {
	return `variables.spec.?` + field + `.orValue(false) ? ['spec.` + field + `'] : []`
}

// containers lists the containers of a variable to which a condition applies.
func containers(of, condition string) string {
	return `variables.` + of + `.filter(c, ` + condition + `).map(c, 'container ' + c.name)`
}

// quote writes a string of CEL.
func quote(s string) string { return strconv.Quote(s) }

func list(items []string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
