// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/inject"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// rendered is what the injector makes of a pod: the guard expects nothing else of
// containers with its names. It is taken from the injector, so the two agree.
type rendered struct {
	init, sidecar, router corev1.Container
	volumes               []corev1.Volume
	// bypass as arguments of the init container.
	ranges, portwise []string
}

// render injects a pod of an application and one of a gateway.
func render(c topology.Config) (rendered, error) {
	app := corev1.Container{Name: "app", Image: "app"}
	sidecar, err := injected(c, corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{app}}})
	if err != nil {
		return rendered{}, err
	}
	gateway := corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: inject.ProxyContainer, Image: "auto"}}}}
	gateway.Annotations = map[string]string{"inject.istio.io/templates": "gateway"}
	router, err := injected(c, gateway)
	if err != nil {
		return rendered{}, err
	}
	r := rendered{
		init: sidecar.Spec.InitContainers[0], sidecar: sidecar.Spec.InitContainers[1],
		router: router.Spec.Containers[0], volumes: sidecar.Spec.Volumes,
	}
	for _, b := range c.Bypass {
		if len(b.Ports) == 0 {
			r.ranges = append(r.ranges, b.CIDR)
			continue
		}
		var ports []string
		for _, p := range b.Ports {
			ports = append(ports, strconv.Itoa(p))
		}
		r.portwise = append(r.portwise, b.CIDR+":"+strings.Join(ports, ","))
	}
	return r, nil
}

// injected injects the pod, with no bypass and whatever the members are.
func injected(c topology.Config, pod corev1.Pod) (*corev1.Pod, error) {
	cfg := inject.FromTopology(c, nil)
	cfg.Members, cfg.Bypass, cfg.Injection.Policy = nil, nil, topology.InjectAll
	in, err := inject.New(cfg)
	if err != nil {
		return nil, err
	}
	res, err := in.Inject(inject.Request{Pod: &pod, Namespace: inject.Namespace{Name: "guard"}})
	if err != nil {
		return nil, err
	}
	if res.Pod == nil {
		return nil, fmt.Errorf("the injector leaves a plain pod alone: %s", res.Decision.Reason)
	}
	return res.Pod, nil
}

func (r rendered) volumeNames() []string {
	var out []string
	for _, v := range r.volumes {
		out = append(out, v.Name)
	}
	return out
}

// offenders is a CEL list of what differs, in containers that bear the proxy's
// names, from what the injector renders.
func (r rendered) offenders() string {
	named := func(of, name string) string { return `variables.` + of + `.filter(c, c.name == '` + name + `')` }
	differs := func(containers, what, condition string) string {
		return containers + `.filter(c, !(` + condition + `)).map(c, '` + what + ` of ' + c.name)`
	}
	inits, sidecars, routers := named("inits", inject.InitContainer), named("inits", inject.ProxyContainer), named("apps", inject.ProxyContainer)
	// What the annotations of rule ProxyKeys make injection render otherwise.
	byKeys := []string{
		differs(`variables.proxies`, "image", `c.image == `+quote(r.sidecar.Image)),
		differs(inits, "args", args(r.initArgs())),
		differs(sidecars, "volumeMounts", mounts(r.sidecar.VolumeMounts)),
		differs(routers, "volumeMounts", mounts(r.router.VolumeMounts)),
	}
	parts := []string{
		`('` + string(v1alpha1.RuleProxyKeys) + `' in variables.allowed ? [] : ` + strings.Join(byKeys, ` + `) + `)`,
		differs(named("apps", inject.InitContainer), "place", "false"),
		differs(`variables.proxies`, "command", `size(c.?command.orValue([])) == 0`),
		differs(`variables.proxies`, "lifecycle and probes", `!has(c.lifecycle) && !has(c.livenessProbe) && !c.?readinessProbe.?exec.hasValue() && !c.?startupProbe.?exec.hasValue()`),
		differs(`variables.proxies`, "environment", `size(c.?envFrom.orValue([])) == 0 && c.?env.orValue([]).all(e, !e.name.startsWith('LD_'))`),
		differs(sidecars, "args", args(exactly(r.sidecar.Args))),
		differs(routers, "args", args(exactly(r.router.Args))),
		differs(inits, "securityContext", security(r.init.SecurityContext)),
		differs(sidecars, "securityContext", security(r.sidecar.SecurityContext)),
		differs(routers, "securityContext", security(r.router.SecurityContext)),
		differs(inits, "volumeMounts", mounts(r.init.VolumeMounts)),
		r.volumeOffenders(),
	}
	return strings.Join(parts, ` + `)
}

// separator stands between arguments where they are matched as one text.
const separator = "\n"

func args(pattern string) string {
	return `c.?args.orValue([]).join(` + quote(separator) + `).matches(` + quote(`^`+pattern+`$`) + `)`
}

func exactly(args []string) string { return regexp.QuoteMeta(strings.Join(args, separator)) }

// initArgs are those of a pod without annotations; the ports of incoming traffic
// may differ, and what spec.egress.bypass says may be added.
func (r rendered) initArgs() string {
	a := slices.Clone(r.init.Args)
	for i := range a {
		a[i] = regexp.QuoteMeta(a[i])
		if i > 0 && r.init.Args[i-1] == "--inbound-ports" {
			a[i] = `(\*|[0-9,]*)`
		}
	}
	pattern := strings.Join(a, separator)
	if one := alternatives(r.ranges); one != "" {
		pattern += `(` + separator + `--exclude-outbound-ranges` + separator + one + `(,` + one + `)*)?`
	}
	if one := alternatives(r.portwise); one != "" {
		pattern += `(` + separator + `--exclude-outbound` + separator + one + `)*`
	}
	return pattern
}

func alternatives(values []string) string {
	if len(values) == 0 {
		return ""
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return `(` + strings.Join(quoted, `|`) + `)`
}

// security is a CEL condition: container c has this security context.
func security(want *corev1.SecurityContext) string {
	at := func(field, otherwise, value string) string {
		return `c.?securityContext.?` + field + `.orValue(` + otherwise + `) == ` + value
	}
	is := func(b *bool, field string) string {
		v := strconv.FormatBool(b != nil && *b)
		return at(field, strconv.FormatBool(b == nil || !*b), v)
	}
	id := func(n *int64) string { return strconv.FormatInt(*n, 10) }
	conditions := []string{
		at("runAsUser", "-1", id(want.RunAsUser)), at("runAsGroup", "-1", id(want.RunAsGroup)),
		is(want.RunAsNonRoot, "runAsNonRoot"), is(want.ReadOnlyRootFilesystem, "readOnlyRootFilesystem"),
		is(want.AllowPrivilegeEscalation, "allowPrivilegeEscalation"), is(want.Privileged, "privileged"),
		at("capabilities.?add", "[]", list(names(want.Capabilities.Add))),
		at("capabilities.?drop", "[]", list(names(want.Capabilities.Drop))),
		at("seccompProfile.?type", "''", quote(string(want.SeccompProfile.Type))),
		at("procMount", "'Default'", "'Default'"),
	}
	return strings.Join(conditions, ` && `)
}

func names(in []corev1.Capability) []string {
	out := make([]string, len(in))
	for i, c := range in {
		out[i] = string(c)
	}
	return out
}

// serviceAccountMount is what Kubernetes itself mounts into every container.
const serviceAccountMount = "/var/run/secrets/kubernetes.io/serviceaccount"

func mounts(want []corev1.VolumeMount) string {
	var known []string
	for _, m := range want {
		known = append(known, m.Name+"="+m.MountPath)
	}
	condition := `m.mountPath == '` + serviceAccountMount + `'`
	if len(known) > 0 {
		condition += ` || (m.name + '=' + m.mountPath) in ` + list(known)
	}
	return `c.?volumeMounts.orValue([]).all(m, ` + condition + `)`
}

// volumeOffenders lists volumes with the proxy's names that are not the proxy's.
func (r rendered) volumeOffenders() string {
	var same []string
	for _, v := range r.volumes {
		var source string
		switch {
		case v.EmptyDir != nil:
			source = `has(v.emptyDir)`
		case v.DownwardAPI != nil:
			source = `has(v.downwardAPI)`
		case v.ConfigMap != nil:
			source = `v.?configMap.?name.orValue('') == ` + quote(v.ConfigMap.Name) + ` && !has(v.configMap.items)`
		case v.Projected != nil:
			audience := cmp.Or(v.Projected.Sources[0].ServiceAccountToken, &corev1.ServiceAccountTokenProjection{}).Audience
			source = `v.?projected.?sources.orValue([]).all(s, s.?serviceAccountToken.?audience.orValue('') == ` + quote(audience) + `) && has(v.projected)`
		}
		same = append(same, `(v.name != '`+v.Name+`' || `+source+`)`)
	}
	return `(size(variables.proxies) == 0 ? [] : variables.spec.?volumes.orValue([]).filter(v, !(` + strings.Join(same, ` && `) + `)).map(v, 'volume ' + v.name))`
}
