// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// metrics of the server. Names are Istio's where they mean the same.
type metrics struct {
	streams     *prometheus.GaugeVec
	refused     *prometheus.CounterVec
	pushes      *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	acks        *prometheus.CounterVec
	rejects     *prometheus.CounterVec
	stale       *prometheus.CounterVec
	failures    prometheus.Counter
	quarantined prometheus.Counter
	convergence prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		streams:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "pilot_xds", Help: "Connected proxies, by protocol."}, []string{"protocol"}),
		refused:     counter("isthmusd_xds_refused_total", "Streams refused, by gRPC code.", "code"),
		pushes:      counter("pilot_xds_pushes", "Responses sent, by type.", "type"),
		bytes:       counter("isthmusd_xds_sent_bytes_total", "Bytes of responses sent, by type.", "type"),
		acks:        counter("isthmusd_xds_acks_total", "Responses acknowledged, by type.", "type"),
		rejects:     counter("pilot_total_xds_rejects", "Responses rejected, by type.", "type"),
		stale:       counter("isthmusd_xds_stale_requests_total", "Requests about a response that is not the last, by type.", "type"),
		failures:    prometheus.NewCounter(prometheus.CounterOpts{Name: "pilot_total_xds_internal_errors", Help: "Times that a proxy's configuration could not be computed."}),
		quarantined: prometheus.NewCounter(prometheus.CounterOpts{Name: "isthmusd_xds_quarantined_total", Help: "Resources withheld because two proxies rejected them."}),
		convergence: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "pilot_proxy_convergence_time",
			Help:    "Seconds from a proxy's change of configuration to its last acknowledgement.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30},
		}),
	}
	for t := range resource.NumTypes {
		m.rejects.WithLabelValues(shortName(t)) // So that none shows as 0.
	}
	if r != nil {
		r.MustRegister(m.streams, m.refused, m.pushes, m.bytes, m.acks, m.rejects, m.stale, m.failures, m.quarantined, m.convergence)
	}
	return m
}

// sent counts a response.
func (m *metrics) sent(t resource.Type, r *response) {
	m.pushes.WithLabelValues(shortName(t)).Inc()
	m.bytes.WithLabelValues(shortName(t)).Add(float64(r.buffers.Len()))
}
