// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package distribution finds out how far a configuration has got: it asks every
// replica of isthmusd which of its proxies acknowledged an epoch.
package distribution

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// port where isthmusd answers.
const port = "15016"

// Address where the replica with this IP answers.
func Address(ip string) string { return net.JoinHostPort(ip, port) }

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

// ControlPlane is whom to ask.
type ControlPlane struct {
	// Name that every replica's certificate has, from a CA with this Root (PEM).
	Name string
	Root []byte
	// Replicas are addresses of all of them.
	Replicas []string
}

// Client asks over TLS, with a token.
type Client struct {
	// Token is the file with a token of this program's account for
	// topology.DistributionAudience; read for every question, as it is renewed.
	Token string
	// Timeout after which a replica is given up.
	Timeout time.Duration
}

// standing is a proxy in isthmusd's answer.
type standing struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     string `json:"state"`
}

// Ask asks every replica. One that does not answer is an error: a proxy that only
// it knows must not count as absent.
func (c Client) Ask(ctx context.Context, of ControlPlane, epoch string) (Report, error) {
	if len(of.Replicas) == 0 {
		return Report{}, errors.New("no replica of isthmusd runs")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(of.Root) {
		return Report{}, errors.New("the root certificate of isthmusd cannot be read")
	}
	token, err := os.ReadFile(c.Token)
	if err != nil {
		return Report{}, fmt.Errorf("read the token for isthmusd: %w", err)
	}
	client := &http.Client{Timeout: c.Timeout, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: of.Name, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}}
	r := Report{Epoch: epoch}
	for _, addr := range of.Replicas {
		proxies, err := one(ctx, client, addr, epoch, strings.TrimSpace(string(token)))
		if err != nil {
			return Report{}, fmt.Errorf("ask isthmusd at %s: %w", addr, err)
		}
		r.add(proxies)
	}
	return r, nil
}

func (r *Report) add(proxies []standing) {
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

func one(ctx context.Context, client *http.Client, addr, epoch, token string) ([]standing, error) {
	target := url.URL{Scheme: "https", Host: addr, Path: "/distribution", RawQuery: url.Values{"epoch": {epoch}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(res.Body, 512)) // what arrived is enough for people
		return nil, fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(why)))
	}
	var answer struct {
		Proxies []standing `json:"proxies"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<20)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return answer.Proxies, nil
}
