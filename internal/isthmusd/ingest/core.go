// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"maps"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

func keyOf(o metav1.Object) model.Key {
	return model.Key{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func metaOf(o metav1.Object, kind string) model.Meta {
	return model.Meta{
		Key: keyOf(o), Kind: kind, Created: o.GetCreationTimestamp().Time,
		Labels: o.GetLabels(), ResourceVersion: o.GetResourceVersion(),
	}
}

func serviceRow(s *model.Service) Row {
	return Row{
		Key:    "service/" + s.Namespace + "/" + s.Host,
		Put:    func(x *snapshot.Txn) { x.PutService(s) },
		Remove: func(x *snapshot.Txn) { x.DeleteService(s.ServiceKey) },
	}
}

func endpointsRow(k model.ServiceKey, source string, es []model.Endpoint) Row {
	return Row{
		Key:    "endpoints/" + k.Namespace + "/" + k.Host + "/" + source,
		Put:    func(x *snapshot.Txn) { x.PutEndpoints(k, source, es) },
		Remove: func(x *snapshot.Txn) { x.DeleteEndpoints(k, source) },
	}
}

func (c Converter) service(s *corev1.Service) ([]Row, error) {
	out := &model.Service{
		ServiceKey:      model.ServiceKey{Namespace: s.Namespace, Host: c.serviceHost(s.Name, s.Namespace)},
		Object:          metaOf(s, model.KindService),
		Name:            s.Name,
		Selector:        s.Spec.Selector,
		ExportTo:        splitList(s.Annotations["networking.istio.io/exportTo"]),
		NodeLocal:       s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		PublishNotReady: s.Spec.PublishNotReadyAddresses,
	}
	for _, p := range s.Spec.Ports {
		out.Ports = append(out.Ports, servicePort(p))
	}
	switch {
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return externalName(out, s.Spec.ExternalName), nil
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		out.Headless, out.Resolution = true, model.Passthrough
	default:
		out.Addresses = clusterIPs(s)
	}
	out.EndpointsFromWorkloads = c.Standalone && len(out.Selector) > 0
	return []Row{serviceRow(out)}, nil
}

// externalName makes the target the only endpoint, found by DNS.
func externalName(s *model.Service, target string) []Row {
	s.External, s.ExternalName, s.Resolution, s.Selector = true, target, model.DNS, nil
	ports := map[string]uint32{}
	for _, p := range s.Ports {
		ports[p.Name] = p.Number
		if p.TargetPort != 0 {
			ports[p.Name] = p.TargetPort
		}
	}
	e := model.Endpoint{Address: target, Ports: ports, Ready: true, TLSMode: model.TLSDisabled}
	return []Row{serviceRow(s), endpointsRow(s.ServiceKey, "externalName", []model.Endpoint{e})}
}

func servicePort(p corev1.ServicePort) model.Port {
	out := model.Port{
		Name: p.Name, Number: uint32(p.Port),
		Protocol: portProtocol(p.Port, p.Name, string(p.Protocol), p.AppProtocol),
	}
	switch {
	case p.TargetPort.Type == intstr.String:
		out.TargetName = p.TargetPort.StrVal
	case p.TargetPort.IntVal != 0:
		out.TargetPort = uint32(p.TargetPort.IntVal)
	default:
		out.TargetPort = out.Number
	}
	return out
}

func clusterIPs(s *corev1.Service) []netip.Prefix {
	ips := s.Spec.ClusterIPs
	if len(ips) == 0 && s.Spec.ClusterIP != "" {
		ips = []string{s.Spec.ClusterIP}
	}
	var out []netip.Prefix
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip); err == nil {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

func (c Converter) endpointSlice(s *discoveryv1.EndpointSlice) ([]Row, error) {
	name := s.Labels[discoveryv1.LabelServiceName]
	if name == "" || s.AddressType == discoveryv1.AddressTypeFQDN {
		return nil, nil
	}
	ports := map[string]uint32{}
	for _, p := range s.Ports {
		if p.Port == nil {
			continue
		}
		port := ""
		if p.Name != nil {
			port = *p.Name
		}
		ports[port] = uint32(*p.Port)
	}
	var es []model.Endpoint
	for i := range s.Endpoints {
		if e, ok := sliceEndpoint(&s.Endpoints[i], s.Namespace, ports); ok {
			es = append(es, e)
		}
	}
	k := model.ServiceKey{Namespace: s.Namespace, Host: c.serviceHost(name, s.Namespace)}
	return []Row{endpointsRow(k, s.Name, es)}, nil
}

// sliceEndpoint leaves to the snapshot what the pod behind the endpoint knows.
func sliceEndpoint(e *discoveryv1.Endpoint, ns string, ports map[string]uint32) (model.Endpoint, bool) {
	if len(e.Addresses) == 0 {
		return model.Endpoint{}, false
	}
	out := model.Endpoint{
		// The API says that addresses of one endpoint are interchangeable, and that
		// consumers take the first.
		Address: e.Addresses[0], Ports: ports, Namespace: ns, TLSMode: model.TLSDisabled,
		Ready: e.Conditions.Ready == nil || *e.Conditions.Ready,
	}
	if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
		out.Workload = e.TargetRef.Name
	}
	if e.NodeName != nil {
		out.Node = *e.NodeName
	}
	return out, true
}

func (c Converter) namespace(n *corev1.Namespace) ([]Row, error) {
	ns := &model.Namespace{Name: n.Name, Labels: n.Labels}
	return []Row{{
		Key:    "namespace/" + n.Name,
		Put:    func(x *snapshot.Txn) { x.PutNamespace(ns) },
		Remove: func(x *snapshot.Txn) { x.DeleteNamespace(ns.Name) },
	}}, nil
}

func (c Converter) account(a *corev1.ServiceAccount) ([]Row, error) {
	k := keyOf(a)
	return []Row{{
		Key:    "account/" + k.String(),
		Put:    func(x *snapshot.Txn) { x.PutAccount(k) },
		Remove: func(x *snapshot.Txn) { x.DeleteAccount(k) },
	}}, nil
}

func (c Converter) node(n *corev1.Node) ([]Row, error) {
	node := &model.Node{Name: n.Name, Locality: nodeLocality(n.Labels)}
	for _, cidr := range n.Spec.PodCIDRs {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			node.PodRanges = append(node.PodRanges, p)
		}
	}
	return []Row{{
		Key:    "node/" + n.Name,
		Put:    func(x *snapshot.Txn) { x.PutNode(node) },
		Remove: func(x *snapshot.Txn) { x.DeleteNode(node.Name) },
	}}, nil
}

func nodeLocality(labels map[string]string) string {
	return strings.TrimRight(labels[corev1.LabelTopologyRegion]+"/"+
		labels[corev1.LabelTopologyZone]+"/"+labels["topology.istio.io/subzone"], "/")
}

// secret keeps TLS material only, under the keys of kubernetes.io/tls or the
// generic ones of Istio.
func (c Converter) secret(s *corev1.Secret) ([]Row, error) {
	first := func(keys ...string) []byte {
		for _, k := range keys {
			if len(s.Data[k]) > 0 {
				return s.Data[k]
			}
			if v := s.StringData[k]; v != "" { // in files; the API server never shows it
				return []byte(v)
			}
		}
		return nil
	}
	out := &model.Secret{
		Key: keyOf(s), Cert: first("tls.crt", "cert"), PrivateKey: first("tls.key", "key"), CA: first("ca.crt", "cacert"),
	}
	if (out.Cert == nil || out.PrivateKey == nil) && out.CA == nil {
		return nil, nil
	}
	return []Row{{
		Key:    "secret/" + out.Key.String(),
		Put:    func(x *snapshot.Txn) { x.PutSecret(out) },
		Remove: func(x *snapshot.Txn) { x.DeleteSecret(out.Key) },
	}}, nil
}

// keepAnnotations keeps those that routing and policy know.
func keepAnnotations(all map[string]string) map[string]string {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(k, _ string) bool {
		return !strings.HasPrefix(k, "sidecar.istio.io/") && !strings.HasPrefix(k, "traffic.sidecar.istio.io/")
	})
	if len(out) == 0 {
		return nil
	}
	return out
}
