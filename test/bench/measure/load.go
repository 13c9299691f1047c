// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/isthmus-mesh/isthmus/test/bench/lab"
	"github.com/isthmus-mesh/isthmus/test/bench/load"
)

// Load is what many requests of one kind cost.
type Load struct {
	Name    string        `json:"name"`
	Answers int           `json:"answers"`
	Seconds *Distribution `json:"seconds"`
	// PerSecond is how many were answered, PerCore how many a whole core would.
	PerSecond float64 `json:"per_s"`
	PerCore   float64 `json:"per_core_s"`
	// CPUEach is the control plane's CPU for one, in milliseconds.
	CPUEach float64 `json:"cpu_ms_each"`
}

// loaded measures a load on the control plane.
func loaded(l *lab.Lab, name string, run func() (load.Answers, error)) (*Load, error) {
	before, err := l.Use()
	if err != nil {
		return nil, err
	}
	a, err := run()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	after, err := l.Use()
	if err != nil {
		return nil, err
	}
	n, cpu := len(a.Seconds), after.CPU-before.CPU
	return &Load{
		Name: name, Answers: n, Seconds: Distribute(a.Seconds), PerSecond: round(float64(n) / a.Took.Seconds()),
		PerCore: round(float64(n) / cpu), CPUEach: round(cpu * 1e3 / float64(n)),
	}, nil
}

// Inject asks for so many pods a second.
func Inject(ctx context.Context, l *lab.Lab, rate float64, during time.Duration) (*Load, error) {
	j := load.NewInjection(l.Addr("webhook"), l.CA.Pool())
	// The first ones pay for connections.
	if _, err := j.Run(ctx, rate, 50); err != nil {
		return nil, err
	}
	return loaded(l, "injection", func() (load.Answers, error) { return j.Run(ctx, rate, int(rate*during.Seconds())) })
}

// Issue asks for n certificates.
func Issue(ctx context.Context, l *lab.Lab, p load.Proof, n int) (*Load, error) {
	c, err := load.NewCertificates(l.Addr("secure-grpc"), l.CA, p)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Run(ctx, 8); err != nil {
		return nil, err
	}
	return loaded(l, "certificates by "+string(p), func() (load.Answers, error) { return c.Run(ctx, n) })
}

// AtRest is what an agent and its Envoy take.
type AtRest struct {
	// Services of the mesh, and how the sidecar learns of them, where that is measured.
	Services  int     `json:"services,omitempty"`
	Discovery string  `json:"discovery,omitempty"`
	Rotations int     `json:"rotations"`
	Agent     lab.Use `json:"agent"`
	Envoy     lab.Use `json:"envoy"`
}

// Rest waits and then reads what an agent takes.
func Rest(a *lab.Agent, d time.Duration) (*AtRest, error) {
	time.Sleep(d)
	agent, err := a.Use()
	if err != nil {
		return nil, err
	}
	envoy, err := a.EnvoyUse()
	if err != nil {
		return nil, err
	}
	return &AtRest{Agent: agent, Envoy: envoy}, nil
}

// Soak waits until so many certificates were issued.
func Soak(ctx context.Context, l *lab.Lab, a *lab.Agent, rotations int) (*AtRest, error) {
	first, err := issued(ctx, l)
	if err != nil {
		return nil, err
	}
	for {
		n, err := issued(ctx, l)
		if err != nil {
			return nil, err
		}
		if n-first >= rotations {
			r, err := Rest(a, 0)
			if err == nil {
				r.Rotations = n - first
			}
			return r, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// issued is how many certificates the control plane has signed.
func issued(ctx context.Context, l *lab.Lab) (int, error) {
	const name = "citadel_server_success_cert_issuance_count"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Addr("http")+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	defer res.Body.Close()
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(res.Body)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	f := families[name]
	if f == nil {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	return int(f.GetMetric()[0].GetCounter().GetValue()), nil
}
