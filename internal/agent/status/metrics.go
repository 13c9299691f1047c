// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// Scraper gives metrics in Prometheus' text format; the caller closes them.
type Scraper interface {
	Prometheus(ctx context.Context) (io.ReadCloser, error)
}

// Target is where the application has metrics, as its annotations said.
type Target struct {
	Scrape string `json:"scrape"`
	Path   string `json:"path"`
	Port   string `json:"port"`
}

// ParseTarget reads ISTIO_PROMETHEUS_ANNOTATIONS; nil means nothing to scrape.
func ParseTarget(s string) (*Target, error) {
	if s == "" {
		return nil, nil
	}
	t := &Target{}
	if err := json.Unmarshal([]byte(s), t); err != nil {
		return nil, fmt.Errorf("parse the application's metrics: %w", err)
	}
	if t.Scrape != "true" {
		return nil, nil
	}
	if t.Port == "" {
		t.Port = "80"
	}
	if _, err := strconv.ParseUint(t.Port, 10, 16); err != nil {
		return nil, fmt.Errorf("the application's metrics: %q is no port", t.Port)
	}
	if t.Path == "" {
		t.Path = "/metrics"
	}
	return t, nil
}

const textFormat = "text/plain; version=0.0.4; charset=utf-8"

// metrics writes the agent's, then Envoy's, then the application's metrics. What
// cannot be had is left out, for two thirds are better than nothing.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", textFormat)
	if err := agentMetrics(w, s.options.Agent); err != nil {
		s.options.Log.V(1).Info("no metrics of the agent", "error", err.Error())
	}
	if err := s.envoyMetrics(r.Context(), w); err != nil {
		s.options.Log.V(1).Info("no metrics of Envoy", "error", err.Error())
	}
	if s.options.App == nil {
		return
	}
	if err := s.appMetrics(r.Context(), w, r.Header); err != nil {
		s.options.Log.V(1).Info("no metrics of the application", "error", err.Error())
	}
}

func agentMetrics(w io.Writer, g prometheus.Gatherer) error {
	families, err := g.Gather()
	if err != nil {
		return err
	}
	e := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := e.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) envoyMetrics(ctx context.Context, w io.Writer) error {
	body, err := s.options.Envoy.Prometheus(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	return rename(w, body)
}

// rename gives Istio's standard metrics the names that dashboards know: Envoy puts
// its own name before every metric that comes from an access logger.
func rename(w io.Writer, r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	out := bufio.NewWriterSize(w, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		for _, p := range []string{"", "# TYPE ", "# HELP "} {
			if rest, ok := bytes.CutPrefix(line, []byte(p+"envoy_istio_")); ok {
				_, _ = out.WriteString(p + "istio_")
				line = rest
				break
			}
		}
		if _, werr := out.Write(line); werr != nil {
			return werr
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue // a line longer than the buffer; its end has no name to change
		}
		if err == io.EOF {
			return out.Flush()
		}
		if err != nil {
			return err
		}
	}
}

func (s *Server) appMetrics(ctx context.Context, w io.Writer, scraper http.Header) error {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout(scraper))
	defer cancel()
	t := s.options.App
	u := "http://" + net.JoinHostPort("localhost", t.Port) + "/" + strings.TrimPrefix(t.Path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", textFormat)
	if v := scraper.Get("X-Prometheus-Scrape-Timeout-Seconds"); v != "" {
		req.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the application answered %s", res.Status)
	}
	_, err = io.Copy(w, res.Body)
	return err
}

func scrapeTimeout(h http.Header) time.Duration {
	if s, err := strconv.ParseFloat(h.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64); err == nil && s > 0 {
		return time.Duration(s * float64(time.Second))
	}
	return 10 * time.Second
}
