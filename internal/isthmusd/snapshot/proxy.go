// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// AttributeKind is a kind of question about the proxy.
type AttributeKind uint8

// The questions that can be asked about a proxy. Nothing else of it may shape a
// resource: proxies with equal answers share the bytes.
const (
	AttributeType AttributeKind = iota
	AttributeNamespace
	AttributeLabel
	AttributeMatches
	AttributeLocality
	AttributeNetwork
	AttributeNode
	AttributeInterception
	AttributeIPv4
	AttributeIPv6
	AttributeServiceAccount
	AttributeDelta
	AttributeHostsApart
	AttributeOnDemand
	AttributePort
	// AttributeInNamespace tells whether the namespace is the one in Key.
	AttributeInNamespace
	// AttributeSidecars is the namespace if it has Sidecars, else "". Whoever asks
	// has to record a read of Holders: the answer is the Snapshot's as well.
	AttributeSidecars
	// AttributeFlows numbers the flows that the allowance has for the proxy's
	// namespace. The answer is the Snapshot's as well, see ChangesAnswers.
	AttributeFlows
)

// Attribute answers a question about a proxy.
func (s *Snapshot) Attribute(a Attribute, p *model.Proxy) string {
	switch a.Kind {
	case AttributeInNamespace:
		return strconv.FormatBool(p.Namespace == a.Key)
	case AttributeSidecars:
		if s.sidecars.has(ByNamespace, p.Namespace) {
			return p.Namespace
		}
		return ""
	case AttributeFlows:
		return s.flows(p.Namespace)
	case AttributeType:
		return p.Type
	case AttributeNamespace:
		return p.Namespace
	case AttributeLabel:
		if v, ok := p.Labels[a.Key]; ok {
			return present + v
		}
		return ""
	case AttributeMatches:
		return strconv.FormatBool(Matches(parseSelector(a.Key), p.Labels))
	case AttributeLocality:
		return p.Locality
	case AttributeNetwork:
		return p.Network
	case AttributeNode:
		return p.Node
	case AttributeInterception:
		return p.Interception
	case AttributeIPv4:
		return strconv.FormatBool(hasIPv4(p))
	case AttributeIPv6:
		return strconv.FormatBool(hasIPv6(p))
	case AttributeServiceAccount:
		return p.ServiceAccount
	case AttributeDelta:
		return strconv.FormatBool(p.Delta)
	case AttributeHostsApart:
		return strconv.FormatBool(p.HostsApart)
	case AttributeOnDemand:
		return strconv.FormatBool(p.OnDemand)
	case AttributePort:
		return strconv.Itoa(int(p.Ports[a.Key]))
	}
	return ""
}

// present tells an empty label from none.
const present = "="

// canonical writes a selector so that equal selectors are equal strings.
func canonical(selector map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(selector)) {
		b.WriteString(k + "=" + selector[k] + ",")
	}
	return b.String()
}

// parseSelector reads what canonical wrote; labels hold neither = nor commas.
func parseSelector(s string) map[string]string {
	out := map[string]string{}
	for pair := range strings.SplitSeq(strings.TrimSuffix(s, ","), ",") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			out[k] = v
		}
	}
	return out
}

// hasIPv4 is true also for a proxy whose addresses nobody knows.
func hasIPv4(p *model.Proxy) bool {
	for _, ip := range p.IPs {
		if ip.Unmap().Is4() {
			return true
		}
	}
	return len(p.IPs) == 0
}

func hasIPv6(p *model.Proxy) bool {
	for _, ip := range p.IPs {
		if !ip.Unmap().Is4() {
			return true
		}
	}
	return false
}

func (v *View) ask(k AttributeKind, key string) string {
	a := Attribute{k, key}
	value := v.s.Attribute(a, v.p)
	v.rec.attribute(a, value)
	return value
}

// ProxyType is "sidecar" or "router".
func (v *View) ProxyType() string { return v.ask(AttributeType, "") }

// ProxyNamespace is the namespace of the proxy's pod. Whoever asks is built anew
// for each namespace; InNamespace and ProxySidecars part fewer.
func (v *View) ProxyNamespace() string { return v.ask(AttributeNamespace, "") }

// InNamespace tells whether the proxy's pod is in a namespace. Only the answer is
// recorded: the proxies of all others share what is built.
func (v *View) InNamespace(ns string) bool { return v.ask(AttributeInNamespace, ns) == "true" }

// ProxySidecars lists the Sidecars of the proxy's namespace, oldest first. The
// proxies of all namespaces that have none share what is built.
func (v *View) ProxySidecars() []*model.Sidecar {
	v.rec.read(Sidecars, Holders, "")
	ns := v.ask(AttributeSidecars, "")
	if ns == "" {
		return nil
	}
	return v.Sidecars(ns)
}

// ProxyLabel is the value of one label of the proxy's pod, "" without it.
func (v *View) ProxyLabel(key string) string {
	return strings.TrimPrefix(v.ask(AttributeLabel, key), present)
}

// proxyLabels are the pod's labels with these keys.
func (v *View) proxyLabels(keys []string) map[string]string {
	out := make(map[string]string, len(keys))
	for _, k := range keys {
		if value, ok := strings.CutPrefix(v.ask(AttributeLabel, k), present); ok {
			out[k] = value
		}
	}
	return out
}

// ProxyMatches tells whether the pod's labels satisfy a selector; an empty one
// matches all. Only the answer is recorded, not the labels.
func (v *View) ProxyMatches(selector map[string]string) bool {
	return len(selector) == 0 || v.ask(AttributeMatches, canonical(selector)) == "true"
}

// ProxySelected is ProxyMatches for a selector with expressions; the labels that
// it names are recorded.
func (v *View) ProxySelected(s labels.Selector) bool {
	requirements, selectable := s.Requirements()
	keys := make([]string, len(requirements))
	for i, r := range requirements {
		keys[i] = r.Key()
	}
	return selectable && s.Matches(labels.Set(v.proxyLabels(keys)))
}

// Locality of the proxy as region/zone/subzone.
func (v *View) Locality() string { return v.ask(AttributeLocality, "") }

// Network of the proxy.
func (v *View) Network() string { return v.ask(AttributeNetwork, "") }

// NodeName is the Kubernetes node of the proxy's pod.
func (v *View) NodeName() string { return v.ask(AttributeNode, "") }

// Interception is REDIRECT, TPROXY or NONE.
func (v *View) Interception() string { return v.ask(AttributeInterception, "") }

// IPv4 tells whether the proxy has an IPv4 address.
func (v *View) IPv4() bool { return v.ask(AttributeIPv4, "") == "true" }

// IPv6 tells whether the proxy has an IPv6 address.
func (v *View) IPv6() bool { return v.ask(AttributeIPv6, "") == "true" }

// ServiceAccount of the proxy's pod.
func (v *View) ServiceAccount() string { return v.ask(AttributeServiceAccount, "") }

// Delta tells whether the proxy speaks delta xDS.
func (v *View) Delta() bool { return v.ask(AttributeDelta, "") == "true" }

// HostsApart tells whether the proxy takes virtual hosts one by one.
func (v *View) HostsApart() bool { return v.ask(AttributeHostsApart, "") == "true" }

// OnDemand tells whether the proxy asks for clusters when it needs them.
func (v *View) OnDemand() bool { return v.ask(AttributeOnDemand, "") == "true" }

// ProxyPort is the number of a named container port of the proxy's pod, or 0.
func (v *View) ProxyPort(name string) uint32 {
	n, err := strconv.ParseUint(v.ask(AttributePort, name), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
