// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	commits, objects prometheus.Counter
}

// newMetrics makes the metrics, registered unless r is nil.
func newMetrics(r prometheus.Registerer, q *Queue) *metrics {
	m := &metrics{
		commits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmusd_commits_total", Help: "Batches of changes taken into the snapshot."}),
		objects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmusd_changed_objects_total", Help: "Objects in these batches."}),
	}
	if r == nil {
		return m
	}
	r.MustRegister(m.commits, m.objects,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "isthmusd_configuration_problems", Help: "Objects, files and watches with a problem; see /debug/snapshotz."},
			func() float64 { return float64(len(q.Problems())) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "isthmusd_waiting_sources", Help: "Sources that have not synced."},
			func() float64 { return float64(len(q.Waiting())) }))
	return m
}
