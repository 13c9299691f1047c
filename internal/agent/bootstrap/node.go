// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// Node says who the proxy is (wire contract, 1.1).
type Node struct {
	Role            Role
	Name, Namespace string
	// IPs of the pod, the first one names its family.
	IPs            []netip.Addr
	ClusterDomain  string
	ServiceAccount string
	// Workload that owns the pod; part of Envoy's cluster name.
	Workload            string
	Labels, Annotations map[string]string
	// Metadata besides, by key; values are strings or decoded JSON. It wins over
	// nothing that the other fields say.
	Metadata map[string]any
}

// ID is type~ip~name.namespace~namespace.svc.domain.
func (n Node) ID() string {
	return fmt.Sprintf("%s~%s~%s.%s~%s.svc.%s", n.Role, n.IPs[0], n.Name, n.Namespace, n.Namespace, n.ClusterDomain)
}

// dropped labels name a generation of the workload and nothing to select by.
var dropped = map[string]bool{
	"pod-template-hash":        true,
	"pod-template-generation":  true,
	"controller-revision-hash": true,
}

func (n Node) proto() (*corev3.Node, error) {
	if len(n.IPs) == 0 {
		return nil, errors.New("the pod has no address")
	}
	if n.Name == "" || n.Namespace == "" {
		return nil, errors.New("the pod has no name or namespace")
	}
	md, err := structpb.NewStruct(n.metadata())
	if err != nil {
		return nil, fmt.Errorf("node metadata: %w", err)
	}
	return &corev3.Node{Id: n.ID(), Cluster: n.cluster(), Locality: locality(n.Labels), Metadata: md}, nil
}

func (n Node) metadata() map[string]any {
	var ips []string
	for _, ip := range n.IPs {
		ips = append(ips, ip.String())
	}
	out := map[string]any{}
	for k, v := range n.Metadata {
		out[k] = v
	}
	labels := map[string]any{}
	for k, v := range n.Labels {
		if !dropped[k] {
			labels[k] = v
		}
	}
	annotations := map[string]any{}
	for k, v := range n.Annotations {
		if keepAnnotation(k) {
			annotations[k] = v
		}
	}
	for k, v := range map[string]any{
		"NAME": n.Name, "NAMESPACE": n.Namespace, "SERVICE_ACCOUNT": n.ServiceAccount, "WORKLOAD_NAME": n.Workload,
		"INSTANCE_IPS": strings.Join(ips, ","), "LABELS": labels, "ANNOTATIONS": annotations,
	} {
		if v != "" {
			out[k] = v
		}
	}
	return out
}

// keepAnnotation tells which annotations a control plane can have a use for; the
// rest may be long and is nobody's business.
func keepAnnotation(k string) bool {
	host, _, _ := strings.Cut(k, "/")
	return host == "istio.io" || strings.HasSuffix(host, ".istio.io") || host == "isthmus.dev" || strings.HasSuffix(host, ".isthmus.dev")
}

// cluster is <app>.<namespace>, or by the workload when there is no such label.
func (n Node) cluster() string {
	for _, name := range []string{n.Labels["app"], n.Workload} {
		if name != "" {
			return name + "." + n.Namespace
		}
	}
	return "istio-proxy." + n.Namespace
}

func locality(labels map[string]string) *corev3.Locality {
	for _, k := range []string{"topology.istio.io/locality", "istio-locality"} {
		if v := labels[k]; v != "" {
			if !strings.Contains(v, "/") {
				v = strings.ReplaceAll(v, ".", "/")
			}
			parts := append(strings.SplitN(v, "/", 3), "", "")
			return &corev3.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
		}
	}
	l := &corev3.Locality{
		Region:  labels["topology.kubernetes.io/region"],
		Zone:    labels["topology.kubernetes.io/zone"],
		SubZone: labels["topology.istio.io/subzone"],
	}
	if l.Region == "" && l.Zone == "" && l.SubZone == "" {
		return nil
	}
	return l
}
