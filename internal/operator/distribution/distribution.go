// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package distribution finds out how far a configuration has got: it asks every
// replica of isthmusd which of its proxies acknowledged an epoch.
package distribution

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// ErrNotServed is returned when a replica does not tell: it is of a version that
// does not know the question.
var ErrNotServed = errors.New("isthmusd does not report the distribution")

// Port where isthmusd answers.
const Port = 15014

// Proxy names a proxy by its pod.
type Proxy struct{ Namespace, Name string }

func (p Proxy) String() string { return p.Namespace + "/" + p.Name }

// Report is what all replicas together say of an epoch.
type Report struct {
	Epoch string
	// Acknowledged proxies, and those that refused a part of the configuration.
	Acknowledged, Rejected []Proxy
}

// Lagging lists the expected proxies that no replica saw acknowledge.
func (r Report) Lagging(expected []Proxy) []Proxy {
	var out []Proxy
	for _, p := range expected {
		if !slices.Contains(r.Acknowledged, p) {
			out = append(out, p)
		}
	}
	return out
}

// HTTP asks over HTTP.
type HTTP struct{ Client *http.Client }

// New makes an HTTP that gives up on a replica after the time given.
func New(timeout time.Duration) HTTP {
	return HTTP{Client: &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// standing is a proxy in isthmusd's answer.
type standing struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     string `json:"state"`
}

// Ask asks the replicas at these addresses. One that does not answer is an error:
// a proxy that only it knows must not count as absent.
func (h HTTP) Ask(ctx context.Context, replicas []string, epoch string) (Report, error) {
	if len(replicas) == 0 {
		return Report{}, errors.New("no replica of isthmusd runs")
	}
	r := Report{Epoch: epoch}
	for _, ip := range replicas {
		proxies, err := h.one(ctx, ip, epoch)
		if err != nil {
			return Report{}, fmt.Errorf("ask isthmusd at %s: %w", ip, err)
		}
		for _, p := range proxies {
			id := Proxy{Namespace: p.Namespace, Name: p.Name}
			switch p.State {
			case "Acknowledged":
				r.Acknowledged = append(r.Acknowledged, id)
			case "Rejected":
				r.Rejected = append(r.Rejected, id)
			}
		}
	}
	return r, nil
}

func (h HTTP) one(ctx context.Context, ip, epoch string) ([]standing, error) {
	url := "http://" + net.JoinHostPort(ip, strconv.Itoa(Port)) + "/distribution?epoch=" + epoch
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := h.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return nil, ErrNotServed
	default:
		return nil, errors.New(res.Status)
	}
	var answer struct {
		Proxies []standing `json:"proxies"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<20)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return answer.Proxies, nil
}
