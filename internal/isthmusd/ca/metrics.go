// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import "github.com/prometheus/client_golang/prometheus"

// metrics of the authority. The names are Istio's, so that its dashboards work.
type metrics struct {
	requests  prometheus.Counter
	issued    prometheus.Counter
	refused   *prometheus.CounterVec
	rootEnd   prometheus.Gauge
	signerEnd prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "citadel_server_csr_count",
			Help: "Certificate requests received.",
		}),
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "citadel_server_success_cert_issuance_count",
			Help: "Certificates issued to workloads.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmusd_ca_refused_total",
			Help: "Certificate requests refused, by gRPC code.",
		}, []string{"code"}),
		rootEnd: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "citadel_server_root_cert_expiry_timestamp",
			Help: "When the first trusted root ends, in Unix seconds.",
		}),
		signerEnd: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "citadel_server_cert_chain_expiry_timestamp",
			Help: "When the signing chain ends, in Unix seconds.",
		}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.issued, m.refused, m.rootEnd, m.signerEnd)
	}
	return m
}
