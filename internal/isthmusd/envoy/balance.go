// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commondfp "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

func (p *packer) setBalance(m *clusterv3.Cluster, b ir.Balance) {
	common := &clusterv3.Cluster_CommonLbConfig{}
	switch b.Policy {
	case ir.Chosen:
		m.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		return
	case ir.RoundRobin:
		m.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
		if s := slowStart(b); s != nil {
			m.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: s}}
		}
	case ir.Random:
		m.LbPolicy = clusterv3.Cluster_RANDOM
	case ir.RingHash:
		m.LbPolicy = clusterv3.Cluster_RING_HASH
		if b.MinRing > 0 {
			m.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{
				MinimumRingSize: wrapperspb.UInt64(b.MinRing),
			}}
		}
	case ir.Maglev:
		m.LbPolicy = clusterv3.Cluster_MAGLEV
		if b.Table > 0 {
			m.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{
				TableSize: wrapperspb.UInt64(b.Table),
			}}
		}
	default:
		m.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		if s := slowStart(b); s != nil {
			m.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: s}}
		}
	}
	if b.LocalityWeighted {
		common.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		}
		m.CommonLbConfig = common
	}
	if b.PanicThreshold != nil {
		common.HealthyPanicThreshold = &typev3.Percent{Value: *b.PanicThreshold}
		m.CommonLbConfig = common
	}
}

func slowStart(b ir.Balance) *clusterv3.Cluster_SlowStartConfig {
	if b.Warmup == 0 {
		return nil
	}
	s := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: durationpb.New(b.Warmup)}
	if b.WarmupMin > 0 {
		s.MinWeightPercent = &typev3.Percent{Value: float64(b.WarmupMin)}
	}
	if b.WarmupAggression > 0 {
		s.Aggression = &corev3.RuntimeDouble{DefaultValue: b.WarmupAggression, RuntimeKey: "slow_start.aggression"}
	}
	return s
}

func outlier(o *ir.Outlier) *clusterv3.OutlierDetection {
	if o == nil {
		return nil
	}
	m := &clusterv3.OutlierDetection{
		Consecutive_5Xx:                ptrU32(o.Consecutive5xx),
		ConsecutiveGatewayFailure:      ptrU32(o.ConsecutiveGateway),
		ConsecutiveLocalOriginFailure:  ptrU32(o.ConsecutiveLocal),
		SplitExternalLocalOriginErrors: o.SplitLocal || o.OnlyLocal,
		Interval:                       optDuration(o.Interval),
		BaseEjectionTime:               optDuration(o.BaseEjection),
		MaxEjectionPercent:             optU32(o.MaxPercent),
		// Success rates are never enforced unless somebody asks for them.
		EnforcingSuccessRate: u32(0),
	}
	if o.ConsecutiveGateway != nil {
		m.EnforcingConsecutiveGatewayFailure = u32(100)
		if *o.ConsecutiveGateway == 0 {
			m.ConsecutiveGatewayFailure, m.EnforcingConsecutiveGatewayFailure = nil, u32(0)
		}
	}
	if o.Consecutive5xx != nil && *o.Consecutive5xx == 0 {
		m.Consecutive_5Xx, m.EnforcingConsecutive_5Xx = nil, u32(0)
	}
	if o.OnlyLocal {
		m.EnforcingConsecutive_5Xx = u32(0)
		m.EnforcingLocalOriginSuccessRate = u32(0)
	}
	return m
}

func dnsCache(c ir.DNSCache) *commondfp.DnsCacheConfig {
	out := &commondfp.DnsCacheConfig{
		Name:            c.Name,
		DnsLookupFamily: dnsFamily(c.Family),
		DnsRefreshRate:  durationpb.New(dnsRefresh),
	}
	if c.Outside {
		// A name that a client chooses must not lead to the proxy's own machine or
		// to the cloud's metadata.
		out.ResolvedAddressFilter = &matcherv3.AddressMatcher{Ranges: xdsRanges(ir.NeverOutside())}
	}
	return out
}
