// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"math/big"

	"google.golang.org/protobuf/types/known/wrapperspb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// applyPolicy applies a destination's load balancing, connection pool and
// outlier detection.
func (s *scope) applyPolicy(c *ir.Cluster, d destination) {
	if c.Balance.Policy != ir.Chosen {
		c.Balance = balance(d.policy.loadBalancer)
		c.Balance.LocalityWeighted = localityWeighted(s.v, d.policy)
	}
	s.applyPool(c, d.policy.pool)
	c.Outlier = outlierDetection(d.policy.outlier)
	if c.Outlier != nil && c.Balance.Policy != ir.Chosen {
		// With ejection on, better none than an ejected endpoint, unless told otherwise.
		panicAt := float64(percent(d.policy.outlier.GetMinHealthPercent()))
		c.Balance.PanicThreshold = &panicAt
	}
}

func balance(l *networking.LoadBalancerSettings) ir.Balance {
	var out ir.Balance
	switch p := l.GetLbPolicy().(type) {
	case *networking.LoadBalancerSettings_Simple:
		switch p.Simple {
		case networking.LoadBalancerSettings_RANDOM:
			out.Policy = ir.Random
		case networking.LoadBalancerSettings_ROUND_ROBIN:
			out.Policy = ir.RoundRobin
		}
	case *networking.LoadBalancerSettings_ConsistentHash:
		out.Policy = ir.RingHash
		out.MinRing = p.ConsistentHash.GetMinimumRingSize() //nolint:staticcheck // old manifests still use it
		switch a := p.ConsistentHash.GetHashAlgorithm().(type) {
		case *networking.LoadBalancerSettings_ConsistentHashLB_RingHash_:
			out.MinRing = a.RingHash.GetMinimumRingSize()
		case *networking.LoadBalancerSettings_ConsistentHashLB_Maglev:
			out.Policy, out.MinRing, out.Table = ir.Maglev, 0, a.Maglev.GetTableSize()
		}
	}
	out.MinRing = min(out.MinRing, maxRing)
	if !big.NewInt(int64(min(out.Table, maxTable))).ProbablyPrime(0) {
		out.Table = 0
	}
	out.Warmup = max(l.GetWarmupDurationSecs().AsDuration(), 0)
	if w := l.GetWarmup(); w != nil {
		out.Warmup = max(w.GetDuration().AsDuration(), 0)
		out.WarmupMin = uint32(min(max(w.GetMinimumPercent().GetValue(), 0), 100))
		out.WarmupAggression = max(w.GetAggression().GetValue(), 0)
	}
	return out
}

func positive(n int32) uint32 { return uint32(max(n, 0)) }

func percent(n int32) uint32 { return uint32(min(max(n, 0), 100)) }

// Bounds that Envoy sets; it refuses the whole cluster beyond them.
const (
	maxRing    = 8 << 20
	maxTable   = 5000011
	maxStreams = 1<<31 - 1
)

func (s *scope) applyPool(c *ir.Cluster, p *networking.ConnectionPoolSettings) {
	tcp, http := p.GetTcp(), p.GetHttp()
	c.Pool = ir.Pool{
		ConnectTimeout:        max(tcp.GetConnectTimeout().AsDuration(), 0),
		MaxConnections:        positive(tcp.GetMaxConnections()),
		MaxPending:            positive(http.GetHttp1MaxPendingRequests()),
		MaxRequests:           positive(http.GetHttp2MaxRequests()),
		MaxRetries:            positive(http.GetMaxRetries()),
		RequestsPerConnection: positive(http.GetMaxRequestsPerConnection()),
		ConcurrentStreams:     min(positive(http.GetMaxConcurrentStreams()), maxStreams),
		IdleTimeout:           max(http.GetIdleTimeout().AsDuration(), 0),
		MaxConnectionDuration: max(tcp.GetMaxConnectionDuration().AsDuration(), 0),
	}
	mesh := s.v.Mesh()
	if c.Pool.ConnectTimeout == 0 {
		c.Pool.ConnectTimeout = mesh.GetConnectTimeout().AsDuration()
	}
	keep := tcp.GetTcpKeepalive()
	if keep == nil {
		keep = mesh.GetTcpKeepalive()
	}
	if keep != nil {
		c.Pool.Keepalive = &ir.Keepalive{
			Probes: keep.GetProbes(), Time: keep.GetTime().AsDuration(), Interval: keep.GetInterval().AsDuration(),
		}
	}
	s.upgrade(c, http)
}

// upgrade decides whether HTTP/1.1 is carried by HTTP/2.
func (s *scope) upgrade(c *ir.Cluster, http *networking.ConnectionPoolSettings_HTTPSettings) {
	if c.Protocol != ir.HTTP1 {
		return
	}
	up := s.v.Mesh().GetH2UpgradePolicy() == meshconfig.MeshConfig_UPGRADE
	switch http.GetH2UpgradePolicy() {
	case networking.ConnectionPoolSettings_HTTPSettings_UPGRADE:
		up = true
	case networking.ConnectionPoolSettings_HTTPSettings_DO_NOT_UPGRADE:
		up = false
	}
	switch {
	case http.GetUseClientProtocol():
		c.Protocol = ir.SameAsClient
	case up:
		c.Protocol = ir.HTTP2
	}
}

func value(w *wrapperspb.UInt32Value) *uint32 {
	if w == nil {
		return nil
	}
	n := w.GetValue()
	return &n
}

func outlierDetection(o *networking.OutlierDetection) *ir.Outlier {
	if o == nil {
		return nil
	}
	out := &ir.Outlier{
		Consecutive5xx:     value(o.GetConsecutive_5XxErrors()),
		ConsecutiveGateway: value(o.GetConsecutiveGatewayErrors()),
		SplitLocal:         o.GetSplitExternalLocalOriginErrors(),
		Interval:           max(o.GetInterval().AsDuration(), 0),
		BaseEjection:       max(o.GetBaseEjectionTime().AsDuration(), 0),
		MaxPercent:         percent(o.GetMaxEjectionPercent()),
	}
	if out.SplitLocal {
		out.ConsecutiveLocal = value(o.GetConsecutiveLocalOriginFailures())
	}
	if n := o.GetConsecutiveErrors(); n > 0 && out.ConsecutiveGateway == nil { //nolint:staticcheck // old manifests still use it
		m := uint32(n)
		out.ConsecutiveGateway = &m
	}
	return out
}
