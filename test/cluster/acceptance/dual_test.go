// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package acceptance

import (
	"strings"
	"testing"
)

const dualPods = `
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  containers:
  - name: c
    image: isthmus/testapp:test
    args: [serve, --http, ":8080", --tcp, ":9000", --udp, ":9001"]
    ports: [{name: web, containerPort: 8080}]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {containers: [{name: c, image: "isthmus/testapp:test", args: [pause]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: server}
  ports:
  - {name: http, port: 80, targetPort: 8080, nodePort: 30080}
  - {name: udp, port: 9001, protocol: UDP}
`

// TestDualStack holds that everything that has an IPv4 address has one of IPv6,
// that both work, and that policies mean both.
func TestDualStack(t *testing.T) {
	t.Parallel()
	devcluster, testapp := build(t)
	c := up(t, devcluster, testapp, "dual", "--index", "11", "--ip-family", "dual")
	c.apply(dualPods)
	c.must("kubectl", "wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout=60s")
	client, server, service := c.second("pod/client", ".status.podIPs[1].ip"), c.second("pod/server", ".status.podIPs[1].ip"), c.second("service/web", ".spec.clusterIPs[1]")

	t.Run("services answer everywhere", func(t *testing.T) {
		c := c.within(t)
		c.reaches("client", "http", "http://["+service+"]")
		c.reaches("client", "udp", "["+service+"]:9001")
		c.reaches("node", "http", "http://["+service+"]")
		c.reaches("outside", "http", "http://[fd00:88:b::1]:30080")
		c.reaches("outside", "http", "http://["+server+"]:8080")
		c.reaches("client", "http", "http://web") // and IPv4 as ever
	})
	t.Run("names", func(t *testing.T) {
		c := c.within(t)
		for name, want := range map[string]string{
			"web.default.svc.cluster.local": service,
			"other.outside.test":            "2001:db8::20",
			"any.wild.outside.test":         "2001:db8::30",
		} {
			if got := c.must("exec", "--", "getent", "ahostsv6", name); !strings.HasPrefix(got, want+" ") {
				t.Errorf("%s is %q, want %s", name, got, want)
			}
		}
	})
	t.Run("the outside sees the pod's own address", func(t *testing.T) {
		c := c.within(t)
		if got := c.reaches("client", "http", "http://[2001:db8::10]").remote(); got != client {
			t.Errorf("it saw %q, want %q", got, client)
		}
		c.reaches("client", "http", "https://[2001:db8::20]", "--insecure")
		c.reaches("client", "grpc", "[2001:db8::10]:50051")
	})
	t.Run("egress policy", func(t *testing.T) { c.within(t).dualEgress(server) })
	t.Run("ingress policy", func(t *testing.T) { c.within(t).dualIngress(server) })
}

// second is an IPv6 address of an object.
func (c *cluster) second(object, path string) string {
	c.t.Helper()
	ip := c.must("kubectl", "get", object, "-o", "jsonpath={"+path+"}")
	if !strings.Contains(ip, ":") {
		c.t.Fatalf("%s of %s is %q, want an IPv6 address", path, object, ip)
	}
	return ip
}

const dualEgressPolicy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: egress}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: server}}}]
    ports: [{port: web}]
  - to: [{ipBlock: {cidr: "2001:db8::/32", except: ["2001:db8::20/128"]}}]
    ports: [{port: 80, endPort: 443}]
`

func (c *cluster) dualEgress(server string) {
	c.apply(dualEgressPolicy)
	c.isDenied("client", "http", "http://[2001:db8::20]")
	c.isDenied("client", "tcp", "[2001:db8::10]:9000")
	c.isDenied("client", "udp", "[2001:db8::10]:9001")
	c.isDenied("client", "http", "http://203.0.113.10") // the block is of the other family
	c.isDenied("client", "tcp", "["+server+"]:9000")
	c.isDenied("client", "tcp", "[fd00:88:b::1]:10250")
	c.reaches("client", "http", "http://[2001:db8::10]")
	c.reaches("client", "http", "https://[2001:db8::30]", "--insecure")
	c.reaches("client", "http", "http://["+server+"]:8080")
	c.reaches("server", "http", "http://[2001:db8::20]")
	c.must("kubectl", "delete", "networkpolicy", "egress")
	c.reaches("client", "udp", "[2001:db8::10]:9001")
}

const dualIngressPolicy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: ingress}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{ipBlock: {cidr: "fd00:88::/32"}}]
    ports: [{port: web}]
`

func (c *cluster) dualIngress(server string) {
	c.apply(dualIngressPolicy)
	c.isDenied("client", "http", "http://["+server+"]:8080")
	c.isDenied("outside", "tcp", "["+server+"]:9000")
	c.isDenied("outside", "http", "http://10.88.11.1:30080") // the block is of the other family
	c.reaches("outside", "http", "http://["+server+"]:8080")
	c.reaches("node", "http", "http://["+server+"]:8080") // as probes come
}
