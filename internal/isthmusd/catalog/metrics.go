// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import "github.com/prometheus/client_golang/prometheus"

// Metrics of a Catalog.
type Metrics struct {
	Builds, Failures prometheus.Counter
	Classes          prometheus.Gauge
	Updates          prometheus.Histogram
}

// NewMetrics makes the metrics, registered unless r is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		Builds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmusd_builds_total", Help: "Resources and name lists built."}),
		Failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmusd_build_failures_total", Help: "Resources that could not be built; the last good version stays."}),
		Classes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmusd_proxy_classes", Help: "Kinds of proxies that get different configuration."}),
		Updates: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "isthmusd_update_seconds", Help: "Time from a commit to its finished resources.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}),
	}
	if r != nil {
		r.MustRegister(m.Builds, m.Failures, m.Classes, m.Updates)
	}
	return m
}
