// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/encoding/protojson"
	meshconfig "istio.io/api/mesh/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/internal/version"
)

// Config is what injection depends on besides the pod.
type Config struct {
	// Name of the topology: the tag that istio.io/rev selects.
	Name string
	// Revision that injected pods record.
	Revision string
	// Namespace of the control plane; never injected.
	Namespace string
	// Members select namespaces, any of them; empty means every namespace.
	Members []metav1.LabelSelector
	// Bypass is left out of interception.
	Bypass []topology.Bypass
	// Injection holds policy, image and resources.
	Injection topology.Injection
	// Mesh is what proxies are told of the mesh.
	Mesh Mesh
}

// Mesh is what proxies are told of the mesh they belong to.
type Mesh struct {
	TrustDomain   string
	ClusterDomain string
	// ClusterID, MeshID and Network as in Istio; MeshID defaults to the trust domain.
	ClusterID, MeshID, Network string
	// Defaults is MeshConfig's defaultConfig; nil means none.
	Defaults *meshconfig.ProxyConfig
	// SeparateMetrics is set when MeshConfig's enablePrometheusMerge is false.
	SeparateMetrics bool
}

// DefaultImage is the proxy of this version.
const DefaultImage = "isthmus/isthmus-proxy:" + version.Current

// FromTopology is the Config that the operator's ConfigMap asks for, with this
// version's image if it names none. The mesh configuration may be nil.
func FromTopology(t topology.Config, m *meshconfig.MeshConfig) Config {
	t.Injection.Image = or(t.Injection.Image, DefaultImage)
	merge := m.GetEnablePrometheusMerge()
	return Config{
		Name: t.Name, Revision: t.Revision, Namespace: t.Namespace,
		Members: t.Members, Bypass: t.Bypass, Injection: t.Injection,
		Mesh: Mesh{
			TrustDomain: t.TrustDomain, ClusterDomain: t.ClusterDomain,
			Defaults:        m.GetDefaultConfig(),
			SeparateMetrics: merge != nil && !merge.GetValue(),
		},
	}
}

// Injector is a Config made ready: selectors parsed, defaults filled in. It is
// immutable and safe for concurrent use.
type Injector struct {
	cfg     Config
	members topology.Members
	bypass  []bypass
	// defaults is the JSON form of the mesh's default ProxyConfig.
	defaults map[string]any
	parsers  map[string]parser
	unheard  map[string]string
}

type bypass struct {
	namespaces, pods labels.Selector
	cidr             netip.Prefix
	ports            []int
}

// New checks a Config. Errors name the field; they are the operator's fault, not a
// pod's.
func New(cfg Config) (*Injector, error) {
	if cfg.Name == "" || cfg.Namespace == "" {
		return nil, fmt.Errorf("inject: name and namespace of the topology must be set")
	}
	if cfg.Injection.Image == "" {
		return nil, fmt.Errorf("inject: injection.image must be set")
	}
	in := &Injector{cfg: withDefaults(cfg), parsers: parsers(), unheard: unheard()}
	var err error
	if in.members, err = topology.CompileMembers(cfg.Members); err != nil {
		return nil, fmt.Errorf("inject: %w", err)
	}
	for i, b := range cfg.Bypass {
		c, err := compileBypass(b)
		if err != nil {
			return nil, fmt.Errorf("inject: bypass[%d] %q: %w", i, b.Name, err)
		}
		in.bypass = append(in.bypass, c)
	}
	if in.defaults, err = proxyConfigMap(cfg.Mesh.Defaults); err != nil {
		return nil, fmt.Errorf("inject: default proxy config: %w", err)
	}
	return in, nil
}

// Revision that pods injected now record.
func (in *Injector) Revision() string { return in.cfg.Revision }

func withDefaults(c Config) Config {
	c.Revision = or(c.Revision, c.Name)
	c.Injection.Policy = topology.InjectionPolicy(or(string(c.Injection.Policy), string(topology.InjectLabelled)))
	c.Mesh.TrustDomain = or(c.Mesh.TrustDomain, "cluster.local")
	c.Mesh.ClusterDomain = or(c.Mesh.ClusterDomain, "cluster.local")
	c.Mesh.ClusterID = or(c.Mesh.ClusterID, "Kubernetes")
	c.Mesh.MeshID = or(c.Mesh.MeshID, c.Mesh.TrustDomain)
	return c
}

func compileBypass(b topology.Bypass) (bypass, error) {
	cidr, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return bypass{}, fmt.Errorf("cidr: %w", err)
	}
	out := bypass{namespaces: labels.Everything(), pods: labels.Everything(), cidr: cidr.Masked()}
	if b.Namespaces != nil {
		if out.namespaces, err = metav1.LabelSelectorAsSelector(b.Namespaces); err != nil {
			return bypass{}, fmt.Errorf("namespaces: %w", err)
		}
	}
	if b.Pods != nil {
		if out.pods, err = metav1.LabelSelectorAsSelector(b.Pods); err != nil {
			return bypass{}, fmt.Errorf("pods: %w", err)
		}
	}
	for _, p := range b.Ports {
		if p < 1 || p > 65535 {
			return bypass{}, fmt.Errorf("port %d is not between 1 and 65535", p)
		}
		out.ports = append(out.ports, p)
	}
	return out, nil
}

func proxyConfigMap(c *meshconfig.ProxyConfig) (map[string]any, error) {
	out := map[string]any{}
	if c == nil {
		return out, nil
	}
	b, err := protojson.Marshal(c)
	if err != nil {
		return nil, err
	}
	return out, json.Unmarshal(b, &out)
}

// or returns the first of the two that is not empty.
func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
