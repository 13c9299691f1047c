// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package apply

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what an Applier writes. Its zero value counts nothing.
type Metrics struct{ writes *prometheus.CounterVec }

// NewMetrics makes Metrics that are shown by the registry.
func NewMetrics(r prometheus.Registerer) (Metrics, error) {
	m := Metrics{writes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "isthmus_operator_writes_total",
		Help: "Objects created, updated and deleted by the operator, by kind. At rest it stands still.",
	}, []string{"kind", "action"})}
	return m, r.Register(m.writes)
}

func (m Metrics) count(c Change) {
	if m.writes != nil {
		m.writes.WithLabelValues(c.Ref.GVK.Kind, string(c.Action)).Inc()
	}
}
