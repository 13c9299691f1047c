// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/test/bench/figure"
	"github.com/isthmus-mesh/isthmus/test/bench/measure"
)

// metric is a value of a step of n proxies.
type metric func(s *measure.Step, n int) float64

func cpu(s *measure.Step, _ int) float64  { return s.CPU }
func wall(s *measure.Step, _ int) float64 { return s.Wall }
func rss(s *measure.Step, _ int) float64  { return s.After.RSS }
func peak(s *measure.Step, _ int) float64 { return s.After.Peak }

func refused(s *measure.Step, _ int) float64 { return float64(s.Refused) }

func p99(s *measure.Step, _ int) float64 { return s.Seconds.P99 }

// sent is the bytes that come to each proxy for each change.
func sent(s *measure.Step, n int) (sum float64) {
	for _, t := range s.Pushed {
		sum += float64(t.Bytes)
	}
	return sum / float64(n*max(s.Changes, 1))
}

// resources that the control plane made to connect all: microseconds of CPU each.
func perResource(s *measure.Step, n int) float64 {
	made := 0.0
	for _, t := range s.Pushed {
		made += float64(t.Resources)
	}
	return s.CPU * 1e6 / (made / float64(n))
}

// entry is a row to be: which value of which scenario's step, and what it has to
// be.
type entry struct {
	label, scenario, step string
	of                    metric
	// istiod's value under the same load, if there is one.
	istiod float64
	// share of istiod's that it may be, or the bar itself.
	share, bar float64
}

// drawing is a figure to be.
type drawing struct {
	name, title string
	panels      []panel
}

type panel struct {
	unit    string
	entries []entry
}

// row is the entry's row, and false if it was not measured.
func (r results) row(e entry) (figure.Row, bool) {
	res := r[e.scenario]
	s := res.step(e.step)
	if s == nil {
		return figure.Row{}, false
	}
	bar := e.bar
	if res.Shape.Services < full.services {
		e.istiod = 0 // it was measured with more: a small mesh says nothing beside it
	}
	if e.share > 0 {
		bar = e.istiod * e.share
	}
	label := e.label
	if label == "" {
		label = fmt.Sprintf("%d proxies", res.Proxies)
	}
	return figure.Row{Label: label, Istiod: e.istiod, Bar: bar, Value: e.of(s, max(res.Proxies, 1))}, true
}

// figures are all that can be drawn of what was measured.
func (r results) figures() []figure.Figure {
	var out []figure.Figure
	for _, d := range append(discovery(), wider()...) {
		f := figure.Figure{Name: d.name, Title: d.title}
		for _, p := range d.panels {
			var rows []figure.Row
			for _, e := range p.entries {
				if row, ok := r.row(e); ok {
					rows = append(rows, row)
				}
			}
			if len(rows) > 0 {
				f.Panels = append(f.Panels, figure.Panel{Unit: p.unit, Rows: rows})
			}
		}
		if len(f.Panels) > 0 {
			out = append(out, f)
		}
	}
	return append(out, r.other()...)
}

const (
	seconds = "seconds"
	mib     = "MiB"
	cpuUnit = "seconds of CPU"
)

// changed is the figure of one kind of change. Values are istiod's of 100, 500 and
// 1000 proxies: CPU, then seconds to the last percent of acknowledgements.
func changed(name, title, step string, cpus, lags [3]float64, few, many float64) drawing {
	return drawing{name, title, []panel{
		{cpuUnit, []entry{
			{"", "few", step, cpu, cpus[0], 1. / 20, 0}, {"", "some", step, cpu, cpus[1], 1. / 20, 0},
			{"", "many", step, cpu, cpus[2], 1. / 20, 0},
			{"100 proxies, VHDS", "few-vhds", step, cpu, cpus[0], 0, 0},
			{"1000 proxies, VHDS", "many-vhds", step, cpu, cpus[2], 1. / 100, 0},
		}},
		{"seconds until 99 % have acknowledged", []entry{
			{"", "few", step, p99, lags[0], few, 0}, {"", "some", step, p99, lags[1], 0, 0}, {"", "many", step, p99, lags[2], many, 0},
			{"100 proxies, VHDS", "few-vhds", step, p99, lags[0], 0, 0},
			{"1000 proxies, VHDS", "many-vhds", step, p99, lags[2], 1. / 50, 0},
		}},
	}}
}

// discovery is the figures of the table that istiod was measured by.
func discovery() []drawing {
	endpoint := changed("endpoint", "One endpoint is added", "endpoint", [3]float64{0.05, 0.29, 0.57}, [3]float64{0.14, 0.29, 0.46}, 0, 0)
	for i := range endpoint.panels[0].entries[:3] {
		endpoint.panels[0].entries[i].share = 1. / 5
	}
	endpoint.panels[0].entries = endpoint.panels[0].entries[:3]
	endpoint.panels[1].entries = endpoint.panels[1].entries[:3]
	endpoint.panels[1].entries[0].bar, endpoint.panels[1].entries[2].bar = 0.015, 0.060
	newService := changed("service", "A service is added", "new service", [3]float64{1.9, 8.2, 17.3}, [3]float64{1.3, 5.1, 11.6}, 1./10, 1./8)
	for i := range newService.panels { // the bar of VHDS is for routes
		newService.panels[i].entries[4].share = 0
	}
	return []drawing{
		{"connect", "All proxies connect to a control plane that has just started", []panel{
			{cpuUnit, []entry{
				{"", "few", "connect", cpu, 21, 1. / 20, 0}, {"", "some", "connect", cpu, 97, 1. / 20, 0},
				{"", "many", "connect", cpu, 205, 1. / 20, 0}, {"1000, after its restart", "many", "restart", cpu, 205, 1. / 100, 0},
			}},
			{"seconds until all are complete", []entry{
				{"", "few", "connect", wall, 11.5, 0, 0}, {"", "some", "connect", wall, 51, 0, 0}, {"", "many", "connect", wall, 131, 0, 0},
				{"1000, after its restart", "many", "restart", wall, 0, 0, 0},
			}},
			{"bytes sent to each proxy", []entry{
				{"1000 proxies", "many", "connect", sent, 5_090_000, 0, 0}, {"after its restart", "many", "restart", sent, 0, 0, 0},
			}},
		}},
		{"memory", "Memory with all proxies connected (1000 services, 5.1 MB a proxy)", []panel{{mib, []entry{
			{"100 proxies", "few", "connect", rss, 796, 0, 0}, {"100 proxies, peak", "few", "connect", peak, 992, 0, 0},
			{"500 proxies", "some", "connect", rss, 1950, 1. / 15, 0}, {"500 proxies, peak", "some", "connect", peak, 3460, 1. / 15, 0},
			{"1000 proxies", "many", "connect", rss, 4100, 1. / 15, 0}, {"1000 proxies, peak", "many", "connect", peak, 5090, 1. / 15, 0},
		}}}},
		endpoint,
		changed("route", "One route of a VirtualService changes", "route", [3]float64{2.3, 8.0, 16.8}, [3]float64{1.6, 5.5, 10.5}, 1./10, 1./8),
		newService,
		{"bytes", "What one changed route sends to each proxy", []panel{{"bytes", []entry{
			{"RDS", "many", "route", sent, 629_000, 0, 0}, {"VHDS", "many-vhds", "route", sent, 629_000, 0, 1000},
			{"one endpoint", "many", "endpoint", sent, 7800, 0, 0},
		}}}},
		{"churn", "Ten endpoints a second change, for 30 seconds", []panel{
			{cpuUnit, []entry{
				{"", "few", "churn of 10/s", cpu, 8.3, 1. / 10, 0}, {"", "some", "churn of 10/s", cpu, 27, 1. / 10, 0},
				{"", "many", "churn of 10/s", cpu, 50, 1. / 10, 0},
			}},
			{"seconds until 99 % have acknowledged", []entry{
				{"", "few", "churn of 10/s", p99, 0.74, 1. / 20, 0}, {"", "some", "churn of 10/s", p99, 1.4, 1. / 20, 0},
				{"", "many", "churn of 10/s", p99, 5.4, 1. / 20, 0},
				{"1000 proxies, 200 a second", "many", "churn of 200/s", p99, 0, 0, 0},
			}},
		}},
	}
}
