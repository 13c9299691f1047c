// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
)

func cartPod() *model.Workload {
	return &model.Workload{
		Key:            model.Key{Namespace: "shop", Name: "cart-1"},
		Labels:         map[string]string{"app": "cart"},
		ServiceAccount: "cart",
		IPs:            []netip.Addr{netip.MustParseAddr("10.0.0.7")},
	}
}

func withPods(ps ...*model.Workload) func(*xds.Options) {
	return func(o *xds.Options) {
		all := pods{}
		for _, p := range ps {
			all[p.Key] = p
		}
		o.Pods = all
	}
}

func TestAdmission(t *testing.T) {
	otherAccount := cartPod()
	otherAccount.ServiceAccount = "other"
	tests := map[string]struct {
		options  []func(*xds.Options)
		id       string
		metadata map[string]any
		unready  bool
		want     codes.Code
	}{
		"anonymous, as it says":     {id: cartNode},
		"verified, with its pod":    {options: []func(*xds.Options){verified("shop", "cart"), withPods(cartPod())}, id: cartNode},
		"another namespace":         {options: []func(*xds.Options){verified("bank", "cart")}, id: cartNode, want: codes.PermissionDenied},
		"another account, claimed":  {options: []func(*xds.Options){verified("shop", "cart")}, id: cartNode, metadata: map[string]any{"SERVICE_ACCOUNT": "admin"}, want: codes.PermissionDenied},
		"another account, in fact":  {options: []func(*xds.Options){verified("shop", "cart"), withPods(otherAccount)}, id: cartNode, want: codes.PermissionDenied},
		"namespace in metadata":     {id: cartNode, metadata: map[string]any{"NAMESPACE": "bank"}, want: codes.InvalidArgument},
		"verified, without a pod":   {options: []func(*xds.Options){verified("shop", "cart"), withPods()}, id: cartNode, want: codes.Unavailable},
		"sources have not synced":   {id: cartNode, unready: true, want: codes.Unavailable},
		"not a node id":             {id: "envoy", want: codes.InvalidArgument},
		"a kind that is not served": {id: "waypoint~10.0.0.7~w.shop~shop.svc.cluster.local", want: codes.InvalidArgument},
		"no address":                {id: "sidecar~~w.shop~shop.svc.cluster.local", want: codes.InvalidArgument},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				m := start(t, tc.options...)
				m.source.unready = tc.unready
				c := m.delta(tc.id)
				if tc.metadata != nil {
					md, err := structpb.NewStruct(tc.metadata)
					if err != nil {
						t.Fatal(err)
					}
					c.node.Metadata = md
				}
				c.subscribe(resource.Cluster)
				pass(2 * time.Second)
				if tc.want != codes.OK {
					if err := c.ended(); status.Code(err) != tc.want {
						t.Errorf("error = %v, want %v", err, tc.want)
					}
					return
				}
				c.want(resource.Cluster, []string{})
			})
		})
	}
}

func TestPodTellsWhoTheProxyIs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		pod := cartPod()
		pod.Ports = map[string]uint32{"web": 8080}
		all := pods{pod.Key: pod}
		m := start(t, verified("shop", "cart"), func(o *xds.Options) { o.Pods = all })
		c := m.delta(cartNode)
		c.node.UserAgentVersionType = &core.Node_UserAgentBuildVersion{}
		md, err := structpb.NewStruct(map[string]any{"LABELS": map[string]any{"app": "admin"}, "INTERCEPTION_MODE": "TPROXY"})
		if err != nil {
			t.Fatal(err)
		}
		c.node.Metadata = md
		c.subscribe(resource.Cluster)
		c.next()
		if p := m.source.seen; p.Labels["app"] != "cart" || p.ServiceAccount != "cart" || p.Interception != "TPROXY" || p.Ports["web"] != 8080 || !p.Delta {
			t.Errorf("proxy = %+v", p)
		}
		relabelled := cartPod()
		relabelled.Labels = map[string]string{"app": "till"}
		all[pod.Key] = relabelled
		m.source.set()
		synctest.Wait()
		if p := m.source.seen; p.Labels["app"] != "till" {
			t.Errorf("labels = %v, want those of the pod now", p.Labels)
		}
		delete(all, pod.Key)
		m.source.set()
		if err := c.ended(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("error = %v, want the stream of a deleted pod ended", err)
		}
	})
}

func TestStreamEndsWithItsProof(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t, func(o *xds.Options) {
			o.Identities = callers{authn.Caller{Method: authn.Anonymous, NotAfter: time.Now().Add(time.Minute)}}
		})
		c := m.delta(cartNode)
		c.subscribe(resource.Cluster)
		c.next()
		pass(time.Minute)
		if err := c.ended(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("error = %v", err)
		}
	})
}

func TestSecretsAreForGatewaysOfTheirNamespace(t *testing.T) {
	const gateway = "router~10.0.0.9~gw-1.shop~shop.svc.cluster.local"
	asked := []string{"kubernetes://bank/cert", "kubernetes://cert", "kubernetes://shop/cert", "other://cert"}
	tests := map[string]struct {
		id        string
		anonymous bool
		want      []string
		missing   []string
	}{
		"a verified gateway": {id: gateway, want: asked[1:3], missing: []string{asked[0], asked[3]}},
		"a sidecar":          {id: cartNode, want: []string{}, missing: asked},
		"nobody":             {id: gateway, anonymous: true, want: []string{}, missing: asked},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var options []func(*xds.Options)
				if !tc.anonymous {
					options = append(options, verified("shop", "cart"))
				}
				m := start(t, options...)
				var all []*resource.Resource
				for _, n := range asked {
					all = append(all, made(resource.Secret, n, "key"))
				}
				m.source.set(all...)
				c := m.delta(tc.id)
				c.subscribe(resource.Secret, asked...)
				c.ack(c.want(resource.Secret, tc.want, tc.missing...))
				var rotated []*resource.Resource
				for _, n := range asked {
					rotated = append(rotated, made(resource.Secret, n, "new key"))
				}
				m.source.set(rotated...)
				if len(tc.want) > 0 {
					c.want(resource.Secret, tc.want)
				}
				c.quiet()
			})
		})
	}
}
