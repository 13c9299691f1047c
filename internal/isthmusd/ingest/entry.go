// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	api "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

func problem(format string, args ...any) error { return fmt.Errorf(format, args...) }

// serviceEntry makes a service of each host.
func (c Converter) serviceEntry(e *networking.ServiceEntry) ([]Row, error) {
	spec := &e.Spec
	if len(spec.GetHosts()) == 0 {
		return nil, errors.New("service entry without hosts")
	}
	addresses, err := entryAddresses(spec.GetAddresses())
	if err != nil {
		return nil, err
	}
	ports, err := entryPorts(spec.GetPorts())
	if err != nil {
		return nil, err
	}
	var out []Row
	for _, host := range spec.GetHosts() {
		s := &model.Service{
			ServiceKey: model.ServiceKey{Namespace: e.Namespace, Host: strings.ToLower(host)},
			Object:     metaOf(e, model.KindServiceEntry),
			Addresses:  addresses, Ports: ports,
			Selector:        spec.GetWorkloadSelector().GetLabels(),
			Resolution:      resolution(spec.GetResolution()),
			External:        spec.GetLocation() == api.ServiceEntry_MESH_EXTERNAL,
			ExportTo:        spec.GetExportTo(),
			SubjectAltNames: spec.GetSubjectAltNames(),
		}
		s.EndpointsFromWorkloads = len(s.Selector) > 0
		out = append(out, serviceRow(s))
		if es := entryEndpoints(s, spec.GetEndpoints()); len(es) > 0 {
			out = append(out, endpointsRow(s.ServiceKey, "ServiceEntry "+e.Name, es))
		}
	}
	return out, nil
}

func entryAddresses(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, problem("address %q is neither an IP address nor a range", s)
		}
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out, nil
}

func entryPorts(list []*api.ServicePort) ([]model.Port, error) {
	var out []model.Port
	seen := map[uint32]bool{}
	for _, p := range list {
		if p.GetNumber() == 0 || p.GetNumber() > 65535 || seen[p.GetNumber()] {
			return nil, problem("port number %d is out of range or given twice", p.GetNumber())
		}
		seen[p.GetNumber()] = true
		protocol, _ := namedProtocol(p.GetProtocol())
		target := p.GetTargetPort()
		if target == 0 {
			target = p.GetNumber()
		}
		out = append(out, model.Port{Name: p.GetName(), Number: p.GetNumber(), Protocol: protocol, TargetPort: target})
	}
	return out, nil
}

func resolution(r api.ServiceEntry_Resolution) model.Resolution {
	switch r {
	case api.ServiceEntry_STATIC:
		return model.ClientSideLB
	case api.ServiceEntry_DNS:
		return model.DNS
	case api.ServiceEntry_DNS_ROUND_ROBIN:
		return model.DNSRoundRobin
	case api.ServiceEntry_DYNAMIC_DNS:
		return model.DynamicDNS
	}
	return model.Passthrough
}

// fewLabels bounds the sets of labels that are looked through for an equal one.
const fewLabels = 8

// entryEndpoints are the endpoints that the entry lists. With a DNS resolution
// and none listed, the host itself is the endpoint.
func entryEndpoints(s *model.Service, list []*api.WorkloadEntry) []model.Endpoint {
	out := make([]model.Endpoint, 0, len(list))
	same := shared{ports: entryEndpointPorts(s, nil)}
	for _, w := range list {
		out = append(out, model.Endpoint{
			Address: w.GetAddress(), Ports: same.portsOf(s, w), Ready: true,
			Labels: same.labelsOf(w), Namespace: s.Namespace, ServiceAccount: w.GetServiceAccount(),
			TLSMode:  entryTLS(w.GetLabels(), w.GetServiceAccount()),
			Locality: w.GetLocality(), Network: w.GetNetwork(), Weight: w.GetWeight(),
		})
	}
	byName := s.Resolution == model.DNS || s.Resolution == model.DNSRoundRobin
	if len(out) == 0 && byName && len(s.Selector) == 0 && !strings.HasPrefix(s.Host, "*") {
		out = append(out, model.Endpoint{
			Address: s.Host, Ports: entryEndpointPorts(s, nil), Ready: true,
			Namespace: s.Namespace, TLSMode: model.TLSDisabled,
		})
	}
	return out
}

// shared are maps of an entry's endpoints: nearly all have the same ports and one
// of few sets of labels, and there are ten times as many endpoints as all else.
type shared struct {
	ports  map[string]uint32
	labels []map[string]string
}

func (m *shared) portsOf(s *model.Service, w *api.WorkloadEntry) map[string]uint32 {
	if len(w.GetPorts()) == 0 {
		return m.ports
	}
	return entryEndpointPorts(s, w.GetPorts())
}

func (m *shared) labelsOf(w *api.WorkloadEntry) map[string]string {
	for _, l := range m.labels {
		if maps.Equal(l, w.GetLabels()) {
			return l
		}
	}
	if len(m.labels) < fewLabels {
		m.labels = append(m.labels, w.GetLabels())
	}
	return w.GetLabels()
}

func entryEndpointPorts(s *model.Service, own map[string]uint32) map[string]uint32 {
	out := make(map[string]uint32, len(s.Ports))
	for _, p := range s.Ports {
		out[p.Name] = p.TargetPort
		if n, ok := own[p.Name]; ok {
			out[p.Name] = n
		}
	}
	return out
}
