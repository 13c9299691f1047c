// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"maps"
	"strings"
)

// Labels that injected pods get unless they have them. They are Istio's.
const (
	labelTLSMode           = "security.istio.io/tlsMode"
	labelCanonicalName     = "service.istio.io/canonical-name"
	labelCanonicalRevision = "service.istio.io/canonical-revision"
)

// label adds labels without replacing any: a pod that its ReplicaSet's selector no
// longer matched would be replaced for ever. The revision is an annotation as well,
// as in Istio, and that one always tells the truth.
func (r *renderer) label() {
	l := maps.Clone(r.pod.Labels)
	if l == nil {
		l = map[string]string{}
	}
	setDefault(l, labelTLSMode, "istio")
	setDefault(l, labelCanonicalName, labelValue(firstOf(l, "app.kubernetes.io/name", "app"), r.owner.name))
	setDefault(l, labelCanonicalRevision, labelValue(firstOf(l, "app.kubernetes.io/version", "version"), "latest"))
	setDefault(l, LabelRev, r.in.cfg.Revision)
	r.pod.Labels = l
	r.pod.Annotations[LabelRev] = r.in.cfg.Revision
}

func setDefault(m map[string]string, key, value string) {
	if _, ok := m[key]; !ok && value != "" {
		m[key] = value
	}
}

func firstOf(m map[string]string, keys ...string) string {
	for _, k := range keys {
		if m[k] != "" {
			return m[k]
		}
	}
	return ""
}

// labelValue makes the first that is not empty fit into a label's 63 bytes.
func labelValue(a, b string) string {
	v := or(a, b)
	if len(v) > 63 {
		v = v[:63]
	}
	return strings.Trim(v, "-_.")
}
