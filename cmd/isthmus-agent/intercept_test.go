// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/inject"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// TestRulesFollowTheAnnotations gives the arguments of an injected pod's init
// container to the command that runs there, which prints what it would do.
func TestRulesFollowTheAnnotations(t *testing.T) {
	t.Parallel()
	const traffic = "traffic.sidecar.istio.io/"
	for name, tc := range map[string]struct {
		annotations  map[string]string
		bypass       []topology.Bypass
		want, absent []string
	}{
		"none: everything, but for the proxy's own ports": {
			want: []string{"tcp dport { 15020, 15021, 15090 } counter return", "meta l4proto tcp counter redirect to :15006", "meta l4proto tcp counter redirect to :15001"},
		},
		"inbound ports that are listed": {
			annotations: map[string]string{traffic + "includeInboundPorts": "8080, 9090"},
			want:        []string{"tcp dport { 8080, 9090 } counter redirect to :15006"},
			absent:      []string{"tcp dport { 15020, 15021, 15090 }"},
		},
		"no inbound port": {
			annotations: map[string]string{traffic + "includeInboundPorts": ""},
			absent:      []string{`comment "included ports"`, `comment "all ports"`},
		},
		"inbound ports that are excluded": {
			annotations: map[string]string{traffic + "excludeInboundPorts": "22"},
			want:        []string{"tcp dport { 22, 15020, 15021, 15090 } counter return"},
		},
		"outbound ports that are excluded": {
			annotations: map[string]string{traffic + "excludeOutboundPorts": "3306,6379"},
			want:        []string{"tcp dport { 3306, 6379 } counter return"},
		},
		"outbound ports that are listed, whatever the range": {
			annotations: map[string]string{traffic + "includeOutboundPorts": "5432", traffic + "includeOutboundIPRanges": "10.0.0.0/8"},
			want:        []string{"tcp dport 5432 counter redirect to :15001", "ip daddr 10.0.0.0/8 meta l4proto tcp counter redirect to :15001"},
		},
		"outbound ranges that are excluded, of both families": {
			annotations: map[string]string{traffic + "excludeOutboundIPRanges": "192.0.2.0/24,fd00::/8"},
			want:        []string{"ip daddr 192.0.2.0/24 counter return", "ip6 daddr fd00::/8 counter return"},
		},
		"interfaces that are excluded": {
			annotations: map[string]string{traffic + "excludeInterfaces": "eth1"},
			want:        []string{`iifname "eth1" counter return`, `oifname "eth1" counter return`},
		},
		"a bypass of the topology, on one port": {
			bypass: []topology.Bypass{{Name: "legacy", CIDR: "198.51.100.0/24", Ports: []int{9000}}},
			want:   []string{"ip daddr 198.51.100.0/24 tcp dport 9000 counter return"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := interceptArgs(t, tc.annotations, tc.bypass)
			got := dryRun(t, args)
			for _, w := range tc.want {
				if !strings.Contains(got, w) {
					t.Errorf("%v does not give %q:\n%s", args, w, got)
				}
			}
			for _, a := range tc.absent {
				if strings.Contains(got, a) {
					t.Errorf("%v gives %q:\n%s", args, a, got)
				}
			}
			if again := dryRun(t, args); again != got {
				t.Errorf("printed otherwise the second time:\n%s", again)
			}
		})
	}
}

func interceptArgs(t *testing.T, annotations map[string]string, bypass []topology.Bypass) []string {
	t.Helper()
	in, err := inject.New(inject.FromTopology(topology.Config{Name: "default", Namespace: "isthmus-system", Bypass: bypass}, nil))
	if err != nil {
		t.Fatal(err)
	}
	res, err := in.Inject(inject.Request{
		Pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "cart", Annotations: annotations},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
		},
		Namespace: inject.Namespace{Name: "shop", Labels: map[string]string{inject.LabelInjection: "enabled"}},
	})
	if err != nil || res.Pod == nil {
		t.Fatalf("decision %+v, error %v", res.Decision, err)
	}
	i := slices.IndexFunc(res.Pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == inject.InitContainer })
	if i < 0 {
		t.Fatal("the pod has no init container")
	}
	return res.Pod.Spec.InitContainers[i].Args
}

// dryRun runs the command as the container does, but for its effect.
func dryRun(t *testing.T, args []string) string {
	t.Helper()
	if len(args) == 0 || args[0] != "intercept" {
		t.Fatalf("the init container runs %v", args)
	}
	c := interceptCommand(logr.Discard())
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetArgs(append(slices.Clone(args[1:]), "--dry-run"))
	if err := c.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
