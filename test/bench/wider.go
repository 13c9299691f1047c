// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/test/bench/figure"
)

// wider is the figures of other shapes: scoped, larger, worse.
func wider() []drawing {
	fifth := 1. / 5
	return []drawing{
		{"scoped", "1000 proxies, each seeing its own namespace only (Sidecar ./*)", []panel{
			{cpuUnit, []entry{
				{"all connect", "scoped", "connect", cpu, 11.9, fifth, 0}, {"one endpoint", "scoped", "endpoint", cpu, 0.04, fifth, 0},
				{"one route", "scoped", "route", cpu, 0.16, fifth, 0}, {"one service", "scoped", "new service", cpu, 0.19, fifth, 0},
				{"ten endpoints a second", "scoped", "churn of 10/s", cpu, 8.5, fifth, 0},
			}},
			{"seconds until 99 % have acknowledged", []entry{
				{"one endpoint", "scoped", "endpoint", p99, 0.12, fifth, 0}, {"one route", "scoped", "route", p99, 0.24, fifth, 0},
				{"one service", "scoped", "new service", p99, 0.29, fifth, 0}, {"ten endpoints a second", "scoped", "churn of 10/s", p99, 0.78, fifth, 0},
			}},
			{mib, []entry{{"connected", "scoped", "connect", rss, 490, fifth, 0}, {"connected, peak", "scoped", "connect", peak, 720, fifth, 0}}},
		}},
		{"most", "5000 proxies and 1000 services on two cores", []panel{
			{seconds, []entry{
				{"all complete", "most", "connect", wall, 0, 0, 0}, {"CPU for that", "most", "connect", cpu, 0, 0, 0},
				{"one endpoint, 99 %", "most", "endpoint", p99, 0, 0, 0}, {"one route, 99 %", "most", "route", p99, 0, 0, 0},
				{"one route, CPU", "most", "route", cpu, 0, 0, 0},
			}},
			{mib, []entry{{"peak", "most", "connect", peak, 0, 0, 0}, {"later", "most", "idle", rss, 0, 0, 0}}},
		}},
		{"start", "From start to serving, 10,000 services of 10 endpoints", []panel{{seconds, []entry{
			{"ServiceEntries", "start", "start", wall, 0, 0, 3}, {"Services and Pods", "start-k8s", "start", wall, 0, 0, 3},
		}}}},
		{"rough", "500 proxies, alone and beside 60 that are slow, stuck or refuse", []panel{{"seconds until 99 % of the good ones have acknowledged", []entry{
			{"one endpoint, alone", "rough", "endpoint", p99, 0, 0, 0}, {"beside bad ones", "rough", "endpoint beside bad ones", p99, 0, 0, 0},
			{"one route, alone", "rough", "route", p99, 0, 0, 0}, {"beside bad ones", "rough", "route beside bad ones", p99, 0, 0, 0},
		}}, {mib, []entry{
			{"alone", "rough", "route", rss, 0, 0, 0}, {"beside bad ones", "rough", "route beside bad ones", rss, 0, 0, 0},
		}}}},
		{"storm", "2000 proxies connect anew at once", []panel{{seconds, []entry{
			{"all have been heard", "storm", "storm", wall, 0, 0, 0}, {"CPU for that", "storm", "storm", cpu, 0, 0, 0},
			{"CPU when they came first", "storm", "connect", cpu, 0, 0, 0},
		}}, {"streams", []entry{{"refused", "storm", "storm", refused, 0, 0, 0}}}}},
	}
}

// other is the figures whose bars or values come of more than one step.
func (r results) other() []figure.Figure {
	var out []figure.Figure
	for _, f := range []figure.Figure{r.growth(), r.known(), r.recovery(), r.answers(), r.atRest(), r.modes()} {
		if len(f.Panels) > 0 {
			out = append(out, f)
		}
	}
	return out
}

// growth holds larger meshes against the smallest.
func (r results) growth() figure.Figure {
	f := figure.Figure{Name: "growth", Title: "The mesh grows: what a change costs (20 proxies)"}
	for _, p := range []struct {
		unit, step string
		of         metric
	}{
		{"milliseconds of CPU for one endpoint", "endpoint", cpu}, {"milliseconds of CPU for one DestinationRule", "cluster", cpu},
		{"microseconds of CPU for each resource made", "connect", perResource},
	} {
		var rows []figure.Row
		for _, name := range []string{"fewer-services", "usual-services", "more-services"} {
			s := r[name].step(p.step)
			if s == nil {
				continue
			}
			v := p.of(s, r[name].Proxies)
			if p.step != "connect" {
				v *= 1e3
			}
			row := figure.Row{Label: fmt.Sprintf("%d services", r[name].Shape.Services), Value: v}
			if len(rows) > 0 {
				row.Bar = 2 * rows[0].Value
			}
			rows = append(rows, row)
		}
		if len(rows) > 0 {
			f.Panels = append(f.Panels, figure.Panel{Unit: p.unit, Rows: rows})
		}
	}
	return f
}

// known is what more proxies of known classes add.
func (r results) known() figure.Figure {
	before, after := r["many"].step("idle"), r["many"].step("idle with more")
	f := figure.Figure{Name: "known", Title: "As many proxies again, of classes that are known"}
	if before != nil && after != nil {
		f.Panels = []figure.Panel{{Unit: mib, Rows: []figure.Row{
			{Label: fmt.Sprintf("memory that %d add", r["many"].Proxies), Value: max(0, after.After.RSS-before.After.RSS), Bar: 40},
			{Label: "memory before", Value: before.After.RSS},
		}}}
	}
	return f
}

// recovery is what a slow proxy gets when it reads fast again.
func (r results) recovery() figure.Figure {
	f := figure.Figure{Name: "recovery", Title: "A proxy that was slow reads fast again"}
	if l := r["rough"]; l != nil && l.Recovery != nil {
		f.Panels = []figure.Panel{{Unit: "changes and responses", Rows: []figure.Row{
			{Label: "changes meanwhile", Value: float64(l.Recovery.Changes)},
			{Label: "responses, at most", Value: float64(l.Recovery.Responses), Bar: float64(l.Recovery.Changes) / 2},
		}}}
	}
	return f
}

// answers is injection and certificates.
func (r results) answers() figure.Figure {
	f := figure.Figure{Name: "answers", Title: "Injection at 200 pods a second, and the CA"}
	if l := r["loads"]; l != nil && len(l.Loads) == 2 {
		i, c := l.Loads[0], l.Loads[1]
		f.Panels = []figure.Panel{
			{Unit: "milliseconds, injection", Rows: []figure.Row{
				{Label: "half", Istiod: 5.5, Value: i.Seconds.P50 * 1e3}, {Label: "99 %", Istiod: 28, Bar: 3, Value: i.Seconds.P99 * 1e3},
				{Label: "CPU each", Istiod: 6.5, Bar: 0.5, Value: i.CPUEach},
			}},
			{Unit: "certificates a second", Rows: []figure.Row{
				{Label: "per core", Bar: 1000, AtLeast: true, Value: c.PerCore}, {Label: "with the caller on two cores", Value: c.PerSecond},
			}},
		}
	}
	return f
}

// modes is what a sidecar's Envoy takes in each mode of discovery.
func (r results) modes() figure.Figure {
	f := figure.Figure{Name: "modes", Title: "Envoy at rest in a small mesh and a large one, by spec.proxy.discovery"}
	d := r["modes"]
	if d == nil {
		return f
	}
	memory, start := figure.Panel{Unit: mib}, figure.Panel{Unit: "seconds of CPU since the start"}
	few := map[string]float64{}
	for _, x := range d.AtRest {
		row := figure.Row{Label: fmt.Sprintf("%s, %d services", x.Discovery, x.Services), Value: x.Envoy.RSS}
		if few[x.Discovery] == 0 {
			few[x.Discovery] = x.Envoy.RSS
		} else if x.Discovery == "OnDemand" {
			row.Bar = 1.2 * few[x.Discovery]
		}
		memory.Rows = append(memory.Rows, row)
		row.Value, row.Bar = x.Envoy.CPU, 0
		start.Rows = append(start.Rows, row)
	}
	f.Panels = []figure.Panel{memory, start}
	return f
}

// atRest is the agent, and how it is after many rotations.
func (r results) atRest() figure.Figure {
	f := figure.Figure{Name: "agent", Title: "isthmus-agent at rest, and Envoy beside it"}
	a := r["agent"]
	if a == nil || len(a.AtRest) == 0 {
		return f
	}
	first := a.AtRest[0]
	f.Panels = []figure.Panel{{Unit: mib, Rows: []figure.Row{
		{Label: "agent, resident", Istiod: 26.5, Bar: 26.5 / 2, Value: first.Agent.RSS},
		{Label: "agent, written to", Istiod: 7.4, Bar: 5, Value: first.Agent.Private},
		{Label: "Envoy, 100 services", Value: first.Envoy.RSS},
	}}}
	if soak := a.AtRest[1:]; len(soak) > 1 {
		last := soak[len(soak)-1]
		f.Panels = append(f.Panels, figure.Panel{Unit: mib + ", agent while it rotates", Rows: []figure.Row{
			{Label: fmt.Sprintf("after %d certificates", soak[0].Rotations), Value: soak[0].Agent.RSS},
			{Label: fmt.Sprintf("after %d certificates", last.Rotations), Value: last.Agent.RSS},
		}})
	}
	return f
}
