// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// unheard lists Istio's annotations that change nothing here, with the reason. A pod
// runs as well without what they ask for, so it is warned of and not refused.
func unheard() map[string]string {
	const own, status = "sidecar.istio.io/", "readiness.status.sidecar.istio.io/"
	const fixed = "what Envoy's metrics look like cannot be chosen"
	return map[string]string{
		own + "agentLogLevel":         "the agent has one log level",
		own + "discoveryAddress":      "the proxy asks the control plane of its topology",
		own + "proxyImageType":        "there is one image; sidecar.istio.io/proxyImage names another",
		own + "extraStatTags":         fixed,
		own + "statsCompression":      fixed,
		own + "statsFlushInterval":    fixed,
		own + "statsEvictionInterval": fixed,
		own + "statsHistogramBins":    fixed,
		own + "statsHistogramBuckets": fixed,
		status + "applicationPorts":   "the application's ports are those of its readiness probe",
	}
}

// elsewhere are keys with Istio's prefixes that others than parsers read.
func elsewhere() []string {
	const own = "sidecar.istio.io/"
	return []string{
		KeyInject, AnnotationStatus, own + "statsInclusionPrefixes", own + "statsInclusionSuffixes", own + "statsInclusionRegexps",
	}
}

// heardConfig are the fields of ProxyConfig that somebody reads: the agent, or
// injection. An application is always held until its proxy has started.
func heardConfig() []string {
	return []string{
		"concurrency", "drainDuration", "holdApplicationUntilProxyStarts", "proxyMetadata",
		"proxyStatsMatcher", "terminationDrainDuration",
	}
}

// warnings lists what a pod asks for in vain, sorted by field.
func (in *Injector) warnings(annotations map[string]string, s *settings) []FieldError {
	var out []FieldError
	known := elsewhere()
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		reason, vain := in.unheard[key]
		_, parsed := in.parsers[key]
		ours := strings.HasPrefix(key, "sidecar.istio.io/") || strings.HasPrefix(key, "traffic.sidecar.istio.io/")
		switch {
		case vain:
		case ours && !parsed && !slices.Contains(known, key):
			reason = "there is no such annotation"
		default:
			continue
		}
		out = append(out, FieldError{Field: annotationField(key), Value: annotations[key], Reason: "has no effect: " + reason})
	}
	if annotations[keyNative] == "false" {
		out = append(out, FieldError{
			Field: annotationField(keyNative), Value: "false", Reason: "has no effect: the proxy is always a native sidecar",
		})
	}
	heard := heardConfig()
	for _, field := range slices.Sorted(maps.Keys(s.proxyConfig)) {
		if !slices.Contains(heard, field) {
			out = append(out, FieldError{Field: annotationField("proxy.istio.io/config"), Value: field, Reason: "this field has no effect"})
		}
	}
	return out
}

// keyNative asks for a native sidecar, or for one among the containers.
const keyNative = "sidecar.istio.io/nativeSidecar"

func parseNative(_ *settings, v string) error {
	_, err := parseBool(v)
	return err
}

// cannotBe refuses what a pod must not be without, should it ask for it.
func cannotBe(reason string) parser {
	return func(*settings, string) error { return errors.New(reason) }
}

func parseStatusPort(_ *settings, v string) error {
	if v != "15020" {
		return errors.New("must be 15020, where the agent answers; remove it")
	}
	return nil
}
