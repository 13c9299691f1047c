// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import "github.com/prometheus/client_golang/prometheus"

// metrics bear Istio's names, which dashboards and alerts know.
type metrics struct {
	malformed                                                    prometheus.Counter
	injectRequests, injectSucceeded, injectFailed, injectSkipped prometheus.Counter
	injectSeconds                                                prometheus.Histogram
	validationPassed, validationFailed                           *prometheus.CounterVec
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vector := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"group", "version", "resource"})
	}
	return &metrics{
		malformed:       counter("isthmus_admission_malformed_total", "Admission requests that could not be read."),
		injectRequests:  counter("sidecar_injection_requests_total", "Pods that injection was asked about."),
		injectSucceeded: counter("sidecar_injection_success_total", "Pods that got a proxy."),
		injectFailed:    counter("sidecar_injection_failure_total", "Pods that were refused."),
		injectSkipped:   counter("sidecar_injection_skip_total", "Pods that were left alone."),
		injectSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sidecar_injection_time_seconds", Help: "Time to answer for one pod.",
			Buckets: []float64{.0005, .001, .003, .01, .03, .1, .3, 1, 3},
		}),
		validationPassed: vector("galley_validation_passed", "Objects that passed validation."),
		validationFailed: vector("galley_validation_failed", "Objects that were refused."),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.malformed, m.injectRequests, m.injectSucceeded, m.injectFailed, m.injectSkipped,
		m.injectSeconds, m.validationPassed, m.validationFailed,
	}
}
