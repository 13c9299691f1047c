// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

func TestBadConfigIsRefusedWithTheFieldsName(t *testing.T) {
	t.Parallel()
	bad := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	for name, tc := range map[string]struct {
		change func(*topology.Config)
		want   string
	}{
		"no name":                {func(c *topology.Config) { c.Name = "" }, "name and namespace"},
		"selector of members":    {func(c *topology.Config) { c.Members = []metav1.LabelSelector{*bad} }, "members[0]"},
		"range of a bypass":      {func(c *topology.Config) { c.Bypass = []topology.Bypass{{Name: "x", CIDR: "10.0.0.1"}} }, `bypass[0] "x": cidr`},
		"port of a bypass":       {func(c *topology.Config) { c.Bypass = []topology.Bypass{{CIDR: "::/0", Ports: []int{0}}} }, "port 0"},
		"namespaces of a bypass": {func(c *topology.Config) { c.Bypass = []topology.Bypass{{CIDR: "::/0", Namespaces: bad}} }, "namespaces"},
		"pods of a bypass":       {func(c *topology.Config) { c.Bypass = []topology.Bypass{{CIDR: "::/0", Pods: bad}} }, "pods"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := topology.Config{Name: "default", Namespace: "isthmus-system"}
			tc.change(&c)
			_, err := New(FromTopology(c, nil))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestConfigWithoutImageGetsThisVersions(t *testing.T) {
	t.Parallel()
	c := FromTopology(topology.Config{Name: "default", Namespace: "isthmus-system"}, nil)
	if c.Injection.Image != DefaultImage {
		t.Errorf("image %q, want %q", c.Injection.Image, DefaultImage)
	}
	if _, err := New(c); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{Name: "default", Namespace: "isthmus-system"}); err == nil {
		t.Error("a config with no image at all was taken")
	}
}
