// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"fmt"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
)

// refusal is a google.rpc.Status with a message.
var refusal = text(nil, 2, "this proxy takes nothing")

// nodeOf is who a proxy on an endpoint of a service says it is.
func nodeOf(v mesh.Service, e mesh.Endpoint, own map[string]any) ([]byte, error) {
	md := map[string]any{
		"NAMESPACE": v.Namespace(), "NAME": e.Pod, "CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.31.0",
		"INSTANCE_IPS": e.Address, "INTERCEPTION_MODE": "REDIRECT", "MESH_ID": "cluster.local",
		"SERVICE_ACCOUNT": v.Name, "WORKLOAD_NAME": v.Name, "NODE_NAME": "node-" + e.Zone,
		"LABELS": v.Labels(e),
	}
	for k, x := range own {
		md[k] = x
	}
	s, err := structpb.NewStruct(md)
	if err != nil {
		return nil, fmt.Errorf("node metadata: %w", err)
	}
	return proto.Marshal(&core.Node{
		Id:      fmt.Sprintf("sidecar~%s~%s.%s~%s.svc.cluster.local", e.Address, e.Pod, v.Namespace(), v.Namespace()),
		Cluster: v.Name + "." + v.Namespace(), Metadata: s,
		Locality: &core.Locality{Region: "r1", Zone: e.Zone},
	})
}

func text[T string | []byte](b []byte, field protowire.Number, v T) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendString(b, string(v))
}

// request is what a proxy asks, in either protocol.
type request struct {
	node   []byte
	typ    Type
	nonce  string
	refuse bool
	// Of delta.
	subscribe, unsubscribe []string
	versions               map[string]string
	// Of state of the world.
	names   []string
	version string
}

func (r request) delta() []byte {
	var b []byte
	if r.node != nil {
		b = text(b, 1, r.node)
	}
	b = text(b, 2, typeURLs[r.typ])
	for _, n := range r.subscribe {
		b = text(b, 3, n)
	}
	for _, n := range r.unsubscribe {
		b = text(b, 4, n)
	}
	for n, v := range r.versions {
		b = text(b, 5, text(text(nil, 1, n), 2, v))
	}
	if r.nonce != "" {
		b = text(b, 6, r.nonce)
	}
	if r.refuse {
		b = text(b, 7, refusal)
	}
	return b
}

func (r request) world() []byte {
	var b []byte
	if r.version != "" {
		b = text(b, 1, r.version)
	}
	if r.node != nil {
		b = text(b, 2, r.node)
	}
	for _, n := range r.names {
		b = text(b, 3, n)
	}
	b = text(b, 4, typeURLs[r.typ])
	if r.nonce != "" {
		b = text(b, 5, r.nonce)
	}
	if r.refuse {
		b = text(b, 6, refusal)
	}
	return b
}
