// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"encoding/json"
	"fmt"
	"maps"

	"google.golang.org/protobuf/encoding/protojson"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// meshDefaults are Istio's own for what isthmusd reads of a MeshConfig (the
// comments of istio.io/api/mesh/v1alpha1, and wire-contract "Defaults").
const meshDefaults = `{
  "accessLogEncoding": "TEXT",
  "connectTimeout": "10s",
  "defaultConfig": {
    "drainDuration": "45s", "terminationDrainDuration": "5s",
    "statusPort": 15020, "proxyAdminPort": 15000, "interceptionMode": "REDIRECT"
  },
  "defaultDestinationRuleExportTo": ["*"],
  "defaultServiceExportTo": ["*"],
  "defaultVirtualServiceExportTo": ["*"],
  "dnsRefreshRate": "60s",
  "enableAutoMtls": true,
  "enablePrometheusMerge": true,
  "inboundTrafficPolicy": {"mode": "PASSTHROUGH"},
  "ingressClass": "istio",
  "ingressSelector": "ingressgateway",
  "ingressService": "istio-ingressgateway",
  "localityLbSetting": {"enabled": true},
  "protocolDetectionTimeout": "0s",
  "proxyInboundListenPort": 15006,
  "proxyListenPort": 15001,
  "trustDomainAliases": []
}`

// ParseMesh reads a MeshConfig in YAML over Istio's defaults. What the topology
// decides (trust domain, root namespace, outbound policy) is the topology's.
// Unknown fields are left out, as Istio does, for one may be newer than we are.
func ParseMesh(s string, c topology.Config) (*meshconfig.MeshConfig, error) {
	var base, over map[string]any
	if err := json.Unmarshal([]byte(meshDefaults), &base); err != nil {
		return nil, fmt.Errorf("parse default mesh config: %w", err)
	}
	if err := yaml.Unmarshal([]byte(s), &over); err != nil {
		return nil, fmt.Errorf("parse mesh config: %w", err)
	}
	merged, err := json.Marshal(overlay(base, over))
	if err != nil {
		return nil, fmt.Errorf("merge mesh config: %w", err)
	}
	m := &meshconfig.MeshConfig{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(merged, m); err != nil {
		return nil, fmt.Errorf("parse mesh config: %w", err)
	}
	m.TrustDomain, m.RootNamespace = c.TrustDomain, c.Namespace
	mode := meshconfig.MeshConfig_OutboundTrafficPolicy_ALLOW_ANY
	if c.Outbound == topology.RegistryOnly {
		mode = meshconfig.MeshConfig_OutboundTrafficPolicy_REGISTRY_ONLY
	}
	m.OutboundTrafficPolicy = &meshconfig.MeshConfig_OutboundTrafficPolicy{Mode: mode}
	return m, nil
}

// overlay lays values over a base: maps are merged, everything else replaced.
// It works on JSON since there alone a value that is set to its zero differs
// from one that is not set.
func overlay(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	for k, v := range over {
		a, isMap := out[k].(map[string]any)
		b, alsoMap := v.(map[string]any)
		if isMap && alsoMap {
			out[k] = overlay(a, b)
			continue
		}
		out[k] = v
	}
	return out
}

// Defaults completes a Config with what holds when nobody says otherwise.
func Defaults(c topology.Config) topology.Config {
	fill := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	fill(&c.Name, "default")
	fill(&c.Namespace, "isthmus-system")
	fill((*string)(&c.Topology), string(topology.IngressOnly))
	fill((*string)(&c.Outbound), string(topology.AllowAny))
	fill((*string)(&c.MTLS), string(topology.Permissive))
	fill(&c.TrustDomain, "cluster.local")
	fill(&c.ClusterDomain, "cluster.local")
	return c
}

// configMap is heard only if it is this control plane's. When it goes, what it
// said stays: a control plane does not forget its policy because somebody
// deleted a ConfigMap.
func (c Converter) configMap(m *corev1.ConfigMap) ([]Row, error) {
	if m.Name != topology.ConfigMapName(c.Topology.Name) || m.Namespace != c.Topology.Namespace {
		return nil, nil
	}
	config := c.Topology
	if s, ok := m.Data[topology.ConfigKey]; ok {
		parsed, err := topology.Parse(s)
		if err != nil {
			return nil, err
		}
		config = parsed
		if config.TrustDomain == "" {
			config.TrustDomain = c.Topology.TrustDomain
		}
		config.ClusterDomain = c.Topology.ClusterDomain // names were made with it
		config = Defaults(config)
	}
	mesh, err := ParseMesh(m.Data[topology.MeshKey], config)
	if err != nil {
		return nil, err
	}
	return []Row{{
		Key:    "config",
		Put:    func(x *snapshot.Txn) { x.SetConfig(config); x.SetMesh(mesh) },
		Remove: func(*snapshot.Txn) {},
	}}, nil
}
