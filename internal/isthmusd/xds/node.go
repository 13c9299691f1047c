// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// Node types that are served (wire contract, 1.1).
const (
	sidecar = "sidecar"
	router  = "router"
)

// maxNodeID bounds what is kept of a node's claims.
const maxNodeID = 1024

// parseNode reads who a node claims to be. Namespace, name and account are
// claims until admission has compared them with the caller's identity.
func parseNode(n *core.Node) (*model.Proxy, error) {
	if n == nil {
		return nil, errors.New("first request has no node")
	}
	if len(n.GetId()) > maxNodeID {
		return nil, fmt.Errorf("node id of %d bytes", len(n.GetId()))
	}
	parts := strings.Split(n.GetId(), "~")
	if len(parts) != 4 {
		return nil, fmt.Errorf("node id %q is not type~ip~name.namespace~domain", n.GetId())
	}
	if parts[0] != sidecar && parts[0] != router {
		return nil, fmt.Errorf("node type %q is not served", parts[0])
	}
	md := metadata{n.GetMetadata().GetFields()}
	ips, err := parseIPs(parts[1], md.text("INSTANCE_IPS"))
	if err != nil {
		return nil, err
	}
	// Namespaces hold no dots; pod names may.
	dot := strings.LastIndexByte(parts[2], '.')
	if dot <= 0 || dot == len(parts[2])-1 {
		return nil, fmt.Errorf("node id %q: %q is not name.namespace", n.GetId(), parts[2])
	}
	p := &model.Proxy{
		ID:             n.GetId(),
		Type:           parts[0],
		Name:           parts[2][:dot],
		Namespace:      parts[2][dot+1:],
		IPs:            ips,
		Labels:         md.labels(),
		ServiceAccount: md.text("SERVICE_ACCOUNT"),
		Locality:       locality(n.GetLocality()),
		Network:        md.text("NETWORK"),
		Cluster:        md.text("CLUSTER_ID"),
		Node:           md.text("NODE_NAME"),
		Interception:   interception(md.text("INTERCEPTION_MODE")),
		EnvoyVersion:   envoyVersion(n),
		IstioVersion:   md.text("ISTIO_VERSION"),
		Workload:       md.text("WORKLOAD_NAME"),
	}
	if parts[0] == sidecar {
		d := md.text("ISTHMUS_DISCOVERY")
		p.OnDemand = d == "OnDemand"
		p.HostsApart = p.OnDemand || d == "Full"
	}
	if ns := md.text("NAMESPACE"); ns != "" && ns != p.Namespace {
		return nil, fmt.Errorf("node id names namespace %q, its metadata %q", p.Namespace, ns)
	}
	return p, nil
}

// metadata reads node metadata, where booleans are strings too.
type metadata struct{ fields map[string]*structpb.Value }

func (m metadata) text(key string) string { return m.fields[key].GetStringValue() }

func (m metadata) labels() map[string]string {
	out := map[string]string{}
	for _, key := range []string{"LABELS", "STATIC_LABELS"} {
		for k, v := range m.fields[key].GetStructValue().GetFields() {
			if s, ok := v.GetKind().(*structpb.Value_StringValue); ok {
				out[k] = s.StringValue
			}
		}
	}
	return out
}

// parseIPs prefers INSTANCE_IPS to the one in the node id; the order matters,
// because the first one's family comes first.
func parseIPs(single, list string) ([]netip.Addr, error) {
	texts := []string{single}
	if list != "" {
		texts = strings.Split(list, ",")
	}
	var out []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(strings.TrimSpace(t)); err == nil && !a.IsUnspecified() {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("node has no usable IP address in %q", strings.Join(texts, ","))
	}
	return out, nil
}

func interception(mode string) string {
	switch mode {
	case "TPROXY", "NONE":
		return mode
	default:
		return "REDIRECT"
	}
}

func locality(l *core.Locality) string {
	return strings.TrimRight(l.GetRegion()+"/"+l.GetZone()+"/"+l.GetSubZone(), "/")
}

func envoyVersion(n *core.Node) string {
	v := n.GetUserAgentBuildVersion().GetVersion()
	if v == nil {
		return ""
	}
	return strconv.FormatUint(uint64(v.GetMajorNumber()), 10) + "." + strconv.FormatUint(uint64(v.GetMinorNumber()), 10)
}
