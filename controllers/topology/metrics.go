// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// Metrics tell how topologies are. Its zero value tells nothing.
type Metrics struct {
	conditions *prometheus.GaugeVec
	active     *prometheus.GaugeVec
	transition *prometheus.GaugeVec
}

// NewMetrics makes Metrics that are shown by the registry.
func NewMetrics(r prometheus.Registerer) (Metrics, error) {
	m := Metrics{
		conditions: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_topology_condition",
			Help: "Condition of a MeshTopology: 1 True, 0 False, -1 Unknown.",
		}, []string{"name", "type"}),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_topology_info",
			Help: "The topology that holds, and its version.",
		}, []string{"name", "topology", "version"}),
		transition: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_topology_transition",
			Help: "1 while a transition is in this phase.",
		}, []string{"name", "phase"}),
	}
	for _, c := range []prometheus.Collector{m.conditions, m.active, m.transition} {
		if err := r.Register(c); err != nil {
			return Metrics{}, err
		}
	}
	return m, nil
}

func (m Metrics) set(mt *v1alpha1.MeshTopology) {
	if m.conditions == nil {
		return
	}
	m.forget(mt.Name)
	for _, c := range mt.Status.Conditions {
		m.conditions.WithLabelValues(mt.Name, c.Type).Set(value(c.Status))
	}
	m.active.WithLabelValues(mt.Name, string(mt.Status.Topology), mt.Status.Version).Set(1)
	if t := mt.Status.Transition; t != nil {
		m.transition.WithLabelValues(mt.Name, t.Phase).Set(1)
	}
}

func (m Metrics) forget(name string) {
	if m.conditions == nil {
		return
	}
	of := prometheus.Labels{"name": name}
	m.conditions.DeletePartialMatch(of)
	m.active.DeletePartialMatch(of)
	m.transition.DeletePartialMatch(of)
}

func value(s metav1.ConditionStatus) float64 {
	switch s {
	case metav1.ConditionTrue:
		return 1
	case metav1.ConditionFalse:
		return 0
	}
	return -1
}
