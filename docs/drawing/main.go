// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command drawing writes docs/topologies.svg: the three topologies side by side.
package main

import (
	"fmt"
	"os"
	"strings"
)

const (
	panelWidth  = 400
	panelHeight = 330
	margin      = 20
)

// Colours that read on white and on dark pages alike, as the drawing brings its own ground.
const (
	ground = "#ffffff"
	ink    = "#1f2937"
	soft   = "#6b7280"
	mesh   = "#eef4ff"
	edge   = "#93b4f5"
	proxy  = "#2563eb"
	app    = "#f9fafb"
	good   = "#15803d"
	bad    = "#b91c1c"
	wall   = "#b91c1c"
)

type drawing struct{ strings.Builder }

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(&d.Builder, format+"\n", args...) }

// box is a rectangle with a line or two of text in its middle.
func (d *drawing) box(x, y, w, h int, fill, stroke, colour string, lines ...string) {
	d.add(`<rect x="%d" y="%d" width="%d" height="%d" rx="6" fill="%s" stroke="%s"/>`, x, y, w, h, fill, stroke)
	top := y + h/2 + 4 - (len(lines)-1)*7
	for i, l := range lines {
		d.text(x+w/2, top+i*14, "middle", 11, colour, l)
	}
}

func (d *drawing) text(x, y int, anchor string, size int, colour, s string) {
	d.add(`<text x="%d" y="%d" text-anchor="%s" font-size="%d" fill="%s">%s</text>`, x, y, anchor, size, colour, s)
}

// way is an arrow through the given points.
func (d *drawing) way(colour string, points ...int) {
	var p []string
	for i := 0; i+1 < len(points); i += 2 {
		p = append(p, fmt.Sprintf("%d,%d", points[i], points[i+1]))
	}
	d.add(`<polyline points="%s" fill="none" stroke="%s" stroke-width="2" marker-end="url(#%s)"/>`, strings.Join(p, " "), colour, strings.TrimPrefix(colour, "#"))
}

// stopped is an arrow that ends at a cross.
func (d *drawing) stopped(x1, y1, x2, y2 int) {
	d.add(`<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="2" stroke-dasharray="5 3"/>`, x1, y1, x2, y2, bad)
	d.add(`<path d="M%d %d l10 10 m0 -10 l-10 10" stroke="%s" stroke-width="2.5"/>`, x2-5, y2-5, bad)
}

// panel is one topology.
type panel struct {
	title, says string
	leave       func(d *drawing, x, y int)
}

var panels = []panel{
	{"IngressOnly", "whoever wants to leave leaves", func(d *drawing, x, y int) {
		d.way(good, x+272, y+150, x+318, y+150)
		d.way(good, x+272, y+240, x+318, y+240)
	}},
	{"SidecarEgress", "proxies let registered hosts through", func(d *drawing, x, y int) {
		d.way(good, x+272, y+150, x+318, y+150)
		d.stopped(x+272, y+240, x+302, y+240)
	}},
	{"EgressGateway", "one way out, and a wall around the rest", func(d *drawing, x, y int) {
		d.add(`<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="3" stroke-dasharray="8 4"/>`, x+300, y+70, x+300, y+124, wall)
		d.add(`<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="3" stroke-dasharray="8 4"/>`, x+300, y+180, x+300, y+290, wall)
		d.box(x+268, y+128, 60, 46, proxy, proxy, "#fff", "egress", "gateway")
		d.way(good, x+236, y+150, x+264, y+150)
		d.way(good, x+328, y+150, x+342, y+150)
		d.stopped(x+236, y+240, x+292, y+240)
		d.text(x+308, y+302, "middle", 10, wall, "NetworkPolicy")
	}},
}

func (d *drawing) draw(i int, p panel) {
	x, y := margin+i*(panelWidth+margin), margin
	gateway := p.title == "EgressGateway"
	hosts, podRight := x+322, x+272
	if gateway {
		hosts, podRight = x+346, x+236
	}
	d.text(x+4, y+18, "start", 17, ink, p.title)
	d.text(x+4, y+38, "start", 12, soft, p.says)
	d.add(`<rect x="%d" y="%d" width="%d" height="%d" rx="10" fill="%s" stroke="%s"/>`, x+62, y+56, podRight-x-52, 250, mesh, edge)
	d.text(x+72, y+74, "start", 10, soft, "mesh: mTLS between proxies")
	d.box(x, y+128, 44, 46, app, soft, ink, "client")
	d.box(x+74, y+128, 58, 46, proxy, proxy, "#fff", "ingress", "gateway")
	d.way(good, x+44, y+150, x+70, y+150)
	d.box(x+156, y+98, podRight-x-156, 30, app, soft, ink, "app")
	d.box(x+156, y+128, podRight-x-156, 46, proxy, proxy, "#fff", "sidecar")
	d.box(x+156, y+218, podRight-x-156, 46, proxy, proxy, "#fff", "sidecar")
	d.box(x+156, y+264, podRight-x-156, 30, app, soft, ink, "app")
	d.way(good, x+132, y+150, x+152, y+150)
	d.way(good, x+196, y+174, x+196, y+214)
	d.box(hosts, y+128, 54, 46, app, soft, ink, "allowed", "host")
	d.box(hosts, y+218, 54, 46, app, soft, ink, "other", "host")
	p.leave(d, x, y)
}

func render() string {
	d := &drawing{}
	w, h := len(panels)*(panelWidth+margin)+margin, panelHeight+margin
	d.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" role="img" aria-label="The three topologies">`, w, h)
	d.add(`<defs>`)
	for _, c := range []string{good, bad} {
		d.add(`<marker id="%s" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="%s"/></marker>`, strings.TrimPrefix(c, "#"), c)
	}
	d.add(`</defs>`)
	d.add(`<rect width="%d" height="%d" fill="%s"/>`, w, h, ground)
	for i, p := range panels {
		d.draw(i, p)
	}
	d.add(`</svg>`)
	return d.String()
}

func main() {
	if err := os.WriteFile("docs/topologies.svg", []byte(render()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "drawing:", err)
		os.Exit(1)
	}
}
