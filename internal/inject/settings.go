// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/golang/protobuf/jsonpb" //nolint:staticcheck // what istio.io/api reads its own JSON with; protojson knows no "24h"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// Interception modes of sidecar.istio.io/interceptionMode.
const (
	interceptRedirect = "REDIRECT"
	interceptNone     = "NONE"
)

// settings is what a pod's annotations ask for, on top of the Config.
type settings struct {
	image    string
	logLevel string
	// components are Envoy's log levels by component, as it takes them.
	components string
	mode       string
	gateway    bool
	// ready is the proxy's readiness probe.
	ready     *corev1.Probe
	resources corev1.ResourceRequirements
	// discovery of the pod's own, or "".
	discovery string
	// traffic holds intercept's flags by name.
	traffic map[string]string
	// keepProbes and keepMetrics leave probes and prometheus.io annotations alone.
	keepProbes, keepMetrics bool
	proxyConfig             map[string]any
	extra                   extras
}

// extras are a user's own volumes and their mounts in the proxy.
type extras struct {
	volumes []corev1.Volume
	mounts  []corev1.VolumeMount
}

// parser reads the value of one annotation into settings.
type parser func(s *settings, value string) error

// parsers lists every annotation that changes what is rendered.
func parsers() map[string]parser {
	const own, traffic, ready = "sidecar.istio.io/", "traffic.sidecar.istio.io/", "readiness.status.sidecar.istio.io/"
	const interfaces = "interfaces of virtual machines are not redirected; remove it, and keep such pods out of the mesh"
	return map[string]parser{
		own + "proxyImage":                    parseImage,
		own + "logLevel":                      parseLogLevel,
		own + "componentLogLevel":             parseComponents,
		keyNative:                             parseNative,
		own + "bootstrapOverride":             cannotBe("the proxy starts with the agent's bootstrap only; remove it"),
		ready + "initialDelaySeconds":         parseSeconds(func(s *settings) *int32 { return &s.ready.InitialDelaySeconds }, 0),
		ready + "periodSeconds":               parseSeconds(func(s *settings) *int32 { return &s.ready.PeriodSeconds }, 1),
		ready + "failureThreshold":            parseSeconds(func(s *settings) *int32 { return &s.ready.FailureThreshold }, 1),
		"status.sidecar.istio.io/port":        parseStatusPort,
		traffic + "kubevirtInterfaces":        cannotBe(interfaces),
		"istio.io/reroute-virtual-interfaces": cannotBe(interfaces),
		own + "interceptionMode":              parseMode,
		own + "rewriteAppHTTPProbers":         parseRewrite,
		own + "proxyCPU":                      parseRequest(corev1.ResourceCPU),
		own + "proxyMemory":                   parseRequest(corev1.ResourceMemory),
		own + "proxyCPULimit":                 parseLimit(corev1.ResourceCPU),
		own + "proxyMemoryLimit":              parseLimit(corev1.ResourceMemory),
		own + "userVolume":                    parseVolumes,
		own + "userVolumeMount":               parseMounts,
		"prometheus.istio.io/merge-metrics":   parseMerge,
		"proxy.istio.io/config":               parseProxyConfig,
		"isthmus.dev/discovery":               parseDiscovery,
		"inject.istio.io/templates":           parseTemplates,
		traffic + "includeInboundPorts":       parsePorts("--inbound-ports", allowStar),
		traffic + "excludeInboundPorts":       parsePorts("--exclude-inbound-ports", refuseStar),
		traffic + "includeOutboundPorts":      parsePorts("--outbound-ports", allowStar),
		traffic + "excludeOutboundPorts":      parsePorts("--exclude-outbound-ports", refuseStar),
		traffic + "includeOutboundIPRanges":   parseRanges("--include-outbound-ranges", allowStar),
		traffic + "excludeInterfaces":         parseInterfaces,
		traffic + "excludeOutboundIPRanges":   parseRanges("--exclude-outbound-ranges", refuseStar),
	}
}

// settingsOf reads all annotations; every bad one is reported at once.
func (in *Injector) settingsOf(pod *corev1.Pod) (*settings, error) {
	s := &settings{
		image:       in.cfg.Injection.Image,
		logLevel:    in.cfg.Injection.LogLevel,
		mode:        interceptRedirect,
		ready:       readyProbe(15, 4),
		traffic:     map[string]string{},
		keepMetrics: in.cfg.Mesh.SeparateMetrics,
	}
	var bad []FieldError
	for key, value := range pod.Annotations {
		parse, ok := in.parsers[key]
		if !ok {
			continue
		}
		if err := parse(s, value); err != nil {
			bad = append(bad, FieldError{Field: annotationField(key), Value: value, Reason: err.Error()})
		}
	}
	bad = append(bad, s.settleResources(in.cfg.Injection.Resources)...)
	return s, refused(bad)
}

// settleResources follows Istio: once one of the four annotations is there, only
// they count.
func (s *settings) settleResources(defaults corev1.ResourceRequirements) []FieldError {
	if len(s.resources.Requests) == 0 && len(s.resources.Limits) == 0 {
		s.resources = *defaults.DeepCopy()
		if len(defaults.Requests) == 0 && len(defaults.Limits) == 0 {
			s.resources = defaultResources()
		}
		return nil
	}
	var bad []FieldError
	keys := map[corev1.ResourceName]string{corev1.ResourceCPU: "proxyCPU", corev1.ResourceMemory: "proxyMemory"}
	for _, name := range slices.Sorted(maps.Keys(s.resources.Requests)) {
		request := s.resources.Requests[name]
		limit, ok := s.resources.Limits[name]
		if ok && request.Cmp(limit) > 0 {
			bad = append(bad, FieldError{
				Field: annotationField("sidecar.istio.io/" + keys[name]), Value: request.String(),
				Reason: fmt.Sprintf("must not be more than the limit %s", limit.String()),
			})
		}
	}
	return bad
}

// defaultResources are those of Istio's limits with requests that our proxy needs.
func defaultResources() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
		},
		Limits: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi"),
		},
	}
}

func parseImage(s *settings, v string) error {
	if v == "" || strings.ContainsAny(v, " \t\n") {
		return errors.New("must be an image reference without blanks")
	}
	s.image = v
	return nil
}

func parseLogLevel(s *settings, v string) error {
	levels := logLevels()
	if !slices.Contains(levels, v) {
		return fmt.Errorf("must be one of %s", strings.Join(levels, ", "))
	}
	s.logLevel = v
	return nil
}

// parseDiscovery takes the modes of spec.proxy.discovery, and whole route tables.
func parseDiscovery(s *settings, v string) error {
	modes := []string{"Full", "OnDemand", "Tables"}
	if !slices.Contains(modes, v) {
		return fmt.Errorf("must be one of %s", strings.Join(modes, ", "))
	}
	s.discovery = v
	return nil
}

func logLevels() []string {
	return []string{"trace", "debug", "info", "warning", "error", "critical", "off"}
}

// component is how Envoy calls a part of it that logs.
var component = regexp.MustCompile(`^[a-z0-9_]+$`)

func parseComponents(s *settings, v string) error {
	for _, part := range splitList(v) {
		name, level, _ := strings.Cut(part, ":")
		if !component.MatchString(name) || !slices.Contains(logLevels(), level) {
			return fmt.Errorf("%q must be component:level, such as http:debug, with one of the levels %s", abbreviate(part), strings.Join(logLevels(), ", "))
		}
	}
	s.components = strings.Join(splitList(v), ",")
	return nil
}

// parseSeconds reads a number of a probe, of at least this.
func parseSeconds(of func(*settings) *int32, least int32) parser {
	return func(s *settings, v string) error {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || int32(n) < least {
			return fmt.Errorf("must be a whole number from %d on", least)
		}
		*of(s) = int32(n)
		return nil
	}
}

func parseMode(s *settings, v string) error {
	switch v {
	case interceptRedirect, interceptNone:
		s.mode = v
		return nil
	case "TPROXY":
		return errors.New("TPROXY is not supported; use REDIRECT or NONE")
	}
	return errors.New("must be REDIRECT or NONE")
}

func parseRewrite(s *settings, v string) error {
	on, err := parseBool(v)
	s.keepProbes = !on
	return err
}

func parseMerge(s *settings, v string) error {
	on, err := parseBool(v)
	s.keepMetrics = s.keepMetrics || !on
	return err
}

func parseBool(v string) (bool, error) {
	switch v {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New(`must be "true" or "false"`)
}

func parseRequest(name corev1.ResourceName) parser {
	return func(s *settings, v string) error { return parseQuantity(&s.resources.Requests, name, v) }
}

func parseLimit(name corev1.ResourceName) parser {
	return func(s *settings, v string) error { return parseQuantity(&s.resources.Limits, name, v) }
}

func parseQuantity(list *corev1.ResourceList, name corev1.ResourceName, v string) error {
	q, err := resource.ParseQuantity(v)
	if err != nil || q.Sign() < 0 {
		return errors.New("must be a quantity such as 100m or 128Mi, and not negative")
	}
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = q
	return nil
}

func parseTemplates(s *settings, v string) error {
	switch v {
	case "sidecar":
	case "gateway":
		s.gateway = true
	default:
		return errors.New("must be sidecar or gateway; there are no other templates")
	}
	return nil
}

// parseProxyConfig takes Istio's ProxyConfig as YAML.
func parseProxyConfig(s *settings, v string) error {
	j, err := yaml.YAMLToJSON([]byte(v))
	if err != nil {
		return errors.New("must be YAML")
	}
	var typed meshconfig.ProxyConfig
	// Not typed.UnmarshalJSON, which ignores what it does not know.
	if err := jsonpb.Unmarshal(bytes.NewReader(j), &typed); err != nil {
		return fmt.Errorf("must be a ProxyConfig: %s", plain(err))
	}
	s.proxyConfig, err = proxyConfigMap(&typed)
	return err
}

// plain removes the non-breaking blank that protobuf puts into its messages.
func plain(err error) string {
	return strings.ReplaceAll(err.Error(), "\u00a0", " ")
}

func parseVolumes(s *settings, v string) error {
	byName, list := map[string]corev1.Volume{}, []corev1.Volume{}
	if err := json.Unmarshal([]byte(v), &list); err == nil {
		s.extra.volumes = list
		return nil
	}
	if err := json.Unmarshal([]byte(v), &byName); err != nil {
		return errors.New("must be JSON: a list of volumes, or an object of them by name")
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		vol := byName[name]
		vol.Name = name
		s.extra.volumes = append(s.extra.volumes, vol)
	}
	return nil
}

func parseMounts(s *settings, v string) error {
	byName, list := map[string]corev1.VolumeMount{}, []corev1.VolumeMount{}
	if err := json.Unmarshal([]byte(v), &list); err == nil {
		s.extra.mounts = list
		return nil
	}
	if err := json.Unmarshal([]byte(v), &byName); err != nil {
		return errors.New("must be JSON: a list of volume mounts, or an object of them by name")
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		m := byName[name]
		m.Name = name
		s.extra.mounts = append(s.extra.mounts, m)
	}
	return nil
}
