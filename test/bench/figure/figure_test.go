// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package figure

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestShort(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0", 0.0012345: "0.00123", 0.5: "0.5", 2: "2", 12.34: "12.3", 205: "205", 5092: "5090", 629000: "629000",
	} {
		if got := Short(v); got != want {
			t.Errorf("%v is written %s, want %s", v, got, want)
		}
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		row       Row
		holds     bool
		wantRatio string
	}{
		"less than the bar":      {Row{Istiod: 100, Bar: 5, Value: 4}, true, "1/25"},
		"at the bar":             {Row{Istiod: 100, Bar: 5, Value: 5}, true, "1/20"},
		"more than the bar":      {Row{Istiod: 100, Bar: 5, Value: 200}, false, "2 times"},
		"as much as is wanted":   {Row{Bar: 1000, Value: 1500, AtLeast: true}, true, "–"},
		"less than is wanted":    {Row{Bar: 1000, Value: 500, AtLeast: true}, false, "–"},
		"nothing beside a value": {Row{Istiod: 3, Bar: 1}, true, "∞"},
	} {
		if got := tt.row.Holds(); got != tt.holds {
			t.Errorf("%s: holds %v", name, got)
		}
		if got := tt.row.Ratio(); got != tt.wantRatio {
			t.Errorf("%s: ratio %s, want %s", name, got, tt.wantRatio)
		}
	}
}

// TestADrawingIsWhole reads a drawing as XML: what misses its bar is told, values
// are written, and a panel of nothing but zeros can be drawn.
func TestADrawingIsWhole(t *testing.T) {
	t.Parallel()
	f := Figure{Name: "x", Title: "a < b", Panels: []Panel{
		{Unit: "s", Rows: []Row{{Label: "one", Istiod: 205, Bar: 10, Value: 4.25}, {Label: "two", Bar: 1, Value: 30}}},
		{Unit: "MiB", Rows: []Row{{Label: "none"}}},
	}}
	drawn := string(f.SVG())
	for d := xml.NewDecoder(strings.NewReader(drawn)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{">4.25<", ">205<", "a &lt; b", "misses the bar"} {
		if !strings.Contains(drawn, want) {
			t.Errorf("the drawing lacks %q", want)
		}
	}
	if strings.Contains(drawn, "NaN") || strings.Contains(drawn, "Inf") {
		t.Error("something is drawn nowhere")
	}
}
