// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/json"
	"strconv"
)

// scrape is where the application's own metrics are. Same form as Istio's
// ISTIO_PROMETHEUS_ANNOTATIONS.
type scrape struct {
	Scrape string `json:"scrape"`
	Path   string `json:"path"`
	Port   string `json:"port"`
}

// mergeMetrics points Prometheus at the agent, which answers with Envoy's metrics
// and the application's. It returns the value of ISTIO_PROMETHEUS_ANNOTATIONS, or
// "" if the application told Prometheus nothing. A pod that says
// prometheus.io/scrape: "false" stays unscraped.
func mergeMetrics(annotations map[string]string) (string, error) {
	const scrapeKey, pathKey, portKey = "prometheus.io/scrape", "prometheus.io/path", "prometheus.io/port"
	if annotations[scrapeKey] == "false" {
		return "", nil
	}
	if annotations[portKey] == strconv.Itoa(statusPort) {
		return "", nil
	}
	app := scrape{Scrape: annotations[scrapeKey], Path: annotations[pathKey], Port: annotations[portKey]}
	annotations[scrapeKey] = "true"
	annotations[pathKey] = "/stats/prometheus"
	annotations[portKey] = strconv.Itoa(statusPort)
	if app == (scrape{}) {
		return "", nil
	}
	b, err := json.Marshal(app)
	return string(b), err
}
