// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

// objects are the cluster's: a file each in isthmusd's directory. It plays the
// controllers that give Services addresses, EndpointSlices and names.
type objects struct {
	dir      string
	dns      *dns
	services map[string]*corev1.Service
	pods     map[string]*Pod
	vips     int
}

func newObjects(dir string, d *dns) *objects {
	return &objects{dir: dir, dns: d, services: map[string]*corev1.Service{}, pods: map[string]*Pod{}}
}

// accessLog makes every proxy note its hops.
const accessLog = "accessLogFile: /dev/stdout\naccessLogEncoding: JSON\naccessLogFormat: |\n  " + probe.LogFormat + "\n"

// putConfig writes what the operator would.
func (o *objects) putConfig(c topology.Config, mesh string) error {
	text, err := c.Marshal()
	if err != nil {
		return err
	}
	for _, ns := range []string{"default", systemNamespace} {
		if err := o.put("namespace-"+ns, &corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{"kubernetes.io/metadata.name": ns}},
		}); err != nil {
			return err
		}
	}
	return o.put("topology", &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: topology.ConfigMapName(c.Name)},
		Data:       map[string]string{topology.ConfigKey: text, topology.MeshKey: accessLog + mesh},
	})
}

func (o *objects) putPod(p *Pod) error {
	o.pods[p.Namespace+"/"+p.Name] = p
	if err := o.put("pod-"+p.Namespace+"-"+p.Name, p.object()); err != nil {
		return err
	}
	if _, ok := o.services[p.Namespace+"/"+p.App]; !ok {
		return o.putService(p.service())
	}
	return o.putEndpoints()
}

func (o *objects) deletePod(p *Pod) error {
	delete(o.pods, p.Namespace+"/"+p.Name)
	if err := os.Remove(filepath.Join(o.dir, "pod-"+p.Namespace+"-"+p.Name+".yaml")); err != nil {
		return err
	}
	return o.putEndpoints()
}

// object is the pod as the API server would show it.
func (p *Pod) object() *corev1.Pod {
	app := corev1.Container{Name: "app"}
	for _, name := range slices.Sorted(keys(p.Ports)) {
		app.Ports = append(app.Ports, corev1.ContainerPort{Name: name, ContainerPort: int32(p.Ports[name])})
	}
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels},
		Spec:       corev1.PodSpec{ServiceAccountName: p.Account, NodeName: p.lab.zones[p.Zone].node(), Containers: []corev1.Container{app}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: p.IP.String(),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, ip := range p.addresses() {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip.String()})
	}
	always := corev1.ContainerRestartPolicyAlways
	switch p.Proxy {
	case Sidecar:
		pod.Spec.InitContainers = []corev1.Container{{Name: "istio-proxy", RestartPolicy: &always}}
		pod.Annotations = map[string]string{"sidecar.istio.io/status": "{}"}
	case Router:
		pod.Spec.Containers[0].Name = "istio-proxy"
	}
	return pod
}

func (p *Pod) service() *corev1.Service {
	s := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.App},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": p.App}},
	}
	for _, name := range slices.Sorted(keys(p.Ports)) {
		port := corev1.ServicePort{Name: name, Port: int32(p.Ports[name]), TargetPort: intstr.FromInt32(int32(p.Ports[name]))}
		s.Spec.Ports = append(s.Spec.Ports, port)
	}
	if p.IP6.IsValid() {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	}
	return s
}

// putService gives the Service what the API server would, and its endpoints.
func (o *objects) putService(s *corev1.Service) error {
	if s.Namespace == "" {
		s.Namespace = "default"
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	o.address(&s.Spec)
	for i := range s.Spec.Ports {
		if s.Spec.Ports[i].Protocol == "" {
			s.Spec.Ports[i].Protocol = corev1.ProtocolTCP
		}
		if s.Spec.Ports[i].TargetPort == (intstr.IntOrString{}) {
			s.Spec.Ports[i].TargetPort = intstr.FromInt32(s.Spec.Ports[i].Port)
		}
	}
	if s.Spec.ExternalName != "" {
		o.dns.alias(s.Name+"."+s.Namespace+".svc."+clusterDomain, s.Spec.ExternalName)
	}
	o.services[s.Namespace+"/"+s.Name] = s
	if err := o.put("service-"+s.Namespace+"-"+s.Name, s); err != nil {
		return err
	}
	return o.putEndpoints()
}

// address gives a Service an address of each of its families, unless it has some.
func (o *objects) address(s *corev1.ServiceSpec) {
	if s.ClusterIP != "" {
		s.ClusterIPs = []string{s.ClusterIP}
	}
	if s.ClusterIP != "" || s.Type == corev1.ServiceTypeExternalName {
		return
	}
	o.vips++
	ip := netip.AddrFrom4([4]byte{10, 96, 0, byte(o.vips)})
	for _, family := range s.IPFamilies {
		if family == corev1.IPv6Protocol {
			s.ClusterIPs = append(s.ClusterIPs, sixth("fd00:96::", ip).String())
		} else {
			s.ClusterIPs = append(s.ClusterIPs, ip.String())
		}
	}
	s.ClusterIP = s.ClusterIPs[0]
}

// putEndpoints writes every EndpointSlice as it is now, and names.
func (o *objects) putEndpoints() error {
	for _, key := range slices.Sorted(maps.Keys(o.services)) {
		s := o.services[key]
		var vips, pods []netip.Addr
		for _, text := range s.Spec.ClusterIPs {
			if ip, err := netip.ParseAddr(text); err == nil {
				vips = append(vips, ip)
			}
		}
		for _, family := range s.Spec.IPFamilies {
			if len(s.Spec.Selector) == 0 {
				break
			}
			slice := o.slice(s, family)
			if err := o.put("slice-"+s.Namespace+"-"+s.Name+"-"+string(family), slice); err != nil {
				return err
			}
			for _, e := range slice.Endpoints {
				pods = append(pods, netip.MustParseAddr(e.Addresses[0]))
			}
		}
		host := s.Name + "." + s.Namespace + ".svc." + clusterDomain
		if s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		if len(vips) == 0 { // headless
			vips = pods
		}
		o.dns.set(host, vips...)
	}
	return nil
}

func (o *objects) slice(s *corev1.Service, family corev1.IPFamily) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: s.Name + "-" + strings.ToLower(string(family)), Labels: map[string]string{discoveryv1.LabelServiceName: s.Name},
		},
		AddressType: discoveryv1.AddressType(family),
	}
	for _, p := range s.Spec.Ports {
		port := p.TargetPort.IntVal
		out.Ports = append(out.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &port, Protocol: &p.Protocol})
	}
	selector := labels.SelectorFromSet(s.Spec.Selector)
	for _, key := range slices.Sorted(maps.Keys(o.pods)) {
		p := o.pods[key]
		ip := p.IP
		if family == corev1.IPv6Protocol {
			ip = p.IP6
		}
		if p.Namespace != s.Namespace || !ip.IsValid() || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		zone := p.lab.zones[p.Zone]
		ready, serving, node := !p.terminating, true, zone.node()
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{ip.String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &p.terminating},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name},
		})
	}
	return out
}

// apply writes documents of any kind. Services become the lab's own; the rest goes
// to isthmusd as it is, into the namespace default unless it says otherwise.
func (o *objects) apply(text string) error {
	var rest []string
	for _, doc := range documents(text) {
		var m map[string]any
		if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		if m["kind"] == "Service" {
			s := &corev1.Service{}
			if err := yaml.UnmarshalStrict([]byte(doc), s); err != nil {
				return fmt.Errorf("apply Service: %w", err)
			}
			if err := o.putService(s); err != nil {
				return err
			}
			continue
		}
		meta, _ := m["metadata"].(map[string]any)
		if meta == nil {
			return fmt.Errorf("apply: no metadata in %q", doc)
		}
		if _, ok := meta["namespace"]; !ok && m["kind"] != "Namespace" {
			meta["namespace"] = "default"
		}
		b, err := yaml.Marshal(m)
		if err != nil {
			return err
		}
		// A file by kind and name, so that applying again replaces.
		rest = append(rest, fmt.Sprintf("applied-%v-%v-%v", m["kind"], meta["namespace"], meta["name"]), string(b))
	}
	for i := 0; i < len(rest); i += 2 {
		if err := o.write(rest[i], []byte(rest[i+1])); err != nil {
			return err
		}
	}
	return nil
}

func (o *objects) delete(kind, namespace, name string) error {
	return os.Remove(filepath.Join(o.dir, fmt.Sprintf("applied-%s-%s-%s.yaml", kind, namespace, name)))
}

func (o *objects) put(name string, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	return o.write(name, b)
}

// write replaces the file as a whole, if it changes at all.
func (o *objects) write(name string, b []byte) error {
	file := filepath.Join(o.dir, name+".yaml")
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, b) {
		return nil
	}
	hidden := filepath.Join(o.dir, "."+name)
	if err := os.WriteFile(hidden, b, 0o644); err != nil {
		return err
	}
	return os.Rename(hidden, file)
}

func keys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// Apply gives the cluster these objects, in YAML.
func (l *Lab) Apply(text string) {
	l.t.Helper()
	l.must(l.objects.apply(text))
}

// Delete takes away an object that Apply gave.
func (l *Lab) Delete(kind, namespace, name string) {
	l.t.Helper()
	l.must(l.objects.delete(kind, namespace, name))
}

// Configure changes the topology's configuration, as the operator does.
func (l *Lab) Configure(change func(*topology.Config)) {
	l.t.Helper()
	change(&l.config)
	l.must(l.objects.putConfig(l.config, l.mesh))
}

// Mesh sets fields of the MeshConfig besides the lab's own, as lines of YAML.
func (l *Lab) Mesh(text string) {
	l.t.Helper()
	l.mesh = text
	l.must(l.objects.putConfig(l.config, l.mesh))
}
