// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package figure

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Measures of a drawing, in pixels.
const (
	width      = 860
	labelWidth = 250
	right      = 80
	barHeight  = 13
	rowGap     = 14
	panelHead  = 34
	axisHeight = 34
	titleSpace = 64
)

// Colours: of istiod, isthmusd, the bar to clear, and what does not clear it.
const (
	istiodColour   = "#9aa5b1"
	isthmusdColour = "#1f6feb"
	barColour      = "#111111"
	missColour     = "#d1242f"
	gridColour     = "#e3e7eb"
)

// SVG draws the figure. Axes are logarithmic, for the values are orders of
// magnitude apart.
func (f Figure) SVG() []byte {
	var b strings.Builder
	y := titleSpace
	for _, p := range f.Panels {
		y = p.draw(&b, y)
	}
	height := y + 6
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="12" fill="#24292f">`+"\n", width, height, width, height)
	fmt.Fprintf(&out, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	fmt.Fprintf(&out, `<text x="16" y="26" font-size="16" font-weight="bold">%s</text>`+"\n", html.EscapeString(f.Title))
	f.legend(&out)
	out.WriteString(b.String())
	out.WriteString("</svg>\n")
	return []byte(out.String())
}

// legend names the colours that the figure uses.
func (f Figure) legend(b *strings.Builder) {
	x := 16
	entry := func(mark, text string) {
		fmt.Fprintf(b, `<g transform="translate(%d,38)">%s<text x="22" y="11">%s</text></g>`+"\n", x, mark, text)
		x += 40 + 7*len(text)
	}
	box := func(colour string) string {
		return fmt.Sprintf(`<rect y="1" width="16" height="11" fill="%s"/>`, colour)
	}
	var istiod, bar, miss bool
	for _, p := range f.Panels {
		for _, r := range p.Rows {
			istiod = istiod || r.Istiod > 0
			bar = bar || r.Bar > 0
			miss = miss || r.Bar > 0 && !r.Holds()
		}
	}
	entry(box(isthmusdColour), "isthmusd")
	if miss {
		entry(box(missColour), "isthmusd, misses the bar")
	}
	if istiod {
		entry(box(istiodColour), "istiod")
	}
	if bar {
		entry(fmt.Sprintf(`<rect x="7" width="3" height="14" fill="%s"/>`, barColour), "the bar")
	}
}

// axis maps values to pixels.
type axis struct{ from, to float64 }

func (a axis) x(v float64) float64 {
	share := (math.Log10(v) - a.from) / (a.to - a.from)
	return labelWidth + max(0, share)*(width-labelWidth-right)
}

// axis covers all values of the panel, by whole powers of ten.
func (p Panel) axis() axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, r := range p.Rows {
		for _, v := range []float64{r.Istiod, r.Bar, r.Value} {
			if v > 0 {
				low, high = min(low, math.Log10(v)), max(high, math.Log10(v))
			}
		}
	}
	if math.IsInf(low, 1) {
		return axis{0, 1}
	}
	a := axis{math.Floor(low - 0.15), math.Ceil(high)}
	if a.to <= a.from {
		a.to = a.from + 1
	}
	return a
}

// draw draws the panel from y on and returns where it ends.
func (p Panel) draw(b *strings.Builder, y int) int {
	a := p.axis()
	top := y + panelHead
	heights := 0
	for _, r := range p.Rows {
		heights += r.height() + rowGap
	}
	bottom := top + heights
	fmt.Fprintf(b, `<text x="16" y="%d" font-weight="bold">%s</text>`+"\n", top-12, html.EscapeString(p.Unit))
	for e := a.from; e <= a.to; e++ {
		x := a.x(math.Pow(10, e))
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`+"\n", x, top-4, x, bottom, gridColour)
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#57606a">%s</text>`+"\n", x, bottom+15, Short(math.Pow(10, e)))
	}
	fmt.Fprintf(b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#8c959f"/>`+"\n", labelWidth, bottom, width-right, bottom)
	at := top + rowGap/2
	for _, r := range p.Rows {
		r.draw(b, a, at)
		at += r.height() + rowGap
	}
	return bottom + axisHeight
}

func (r Row) height() int {
	if r.Istiod > 0 {
		return 2*barHeight + 1
	}
	return barHeight
}

func (r Row) draw(b *strings.Builder, a axis, y int) {
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-10, y+r.height()/2+4, html.EscapeString(r.Label))
	bar := func(v float64, y int, colour, weight string) {
		end := float64(labelWidth)
		if v > 0 {
			end = a.x(v)
			fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", labelWidth, y, max(1, end-labelWidth), barHeight, colour)
		}
		// The text stands beside the mark of the bar to clear, not under it.
		if r.Bar > 0 && a.x(r.Bar) >= end-2 && a.x(r.Bar) < end+46 {
			end = a.x(r.Bar)
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%d" font-weight="%s">%s</text>`+"\n", end+6, y+11, weight, Short(v))
	}
	colour := isthmusdColour
	if r.Bar > 0 && !r.Holds() {
		colour = missColour
	}
	bar(r.Value, y, colour, "bold")
	if r.Istiod > 0 {
		bar(r.Istiod, y+barHeight+1, istiodColour, "normal")
	}
	if r.Bar > 0 {
		fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="3" height="%d" fill="%s"/>`+"\n", a.x(r.Bar)-1.5, y-3, r.height()+6, barColour)
	}
}
