// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package acceptance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const pods = `
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
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: server}
  ports:
  - {name: http, port: 80, targetPort: 8080, nodePort: 30080}
  - {name: tcp, port: 9000}
  - {name: udp, port: 9001, protocol: UDP}
`

func TestCluster(t *testing.T) {
	t.Parallel()
	devcluster, testapp := build(t)
	c := up(t, devcluster, testapp, "accept", "--index", "7")
	c.apply(pods)
	c.must("kubectl", "wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout=60s")
	address := c.must("kubectl", "wait", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", "service/web", "--timeout=20s",
		"-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
	pod := c.must("kubectl", "get", "pod", "client", "-o", "jsonpath={.status.podIP}")

	t.Run("services answer everywhere", func(t *testing.T) {
		c := c.within(t)
		c.reaches("client", "http", "http://web.default.svc.cluster.local")
		c.reaches("client", "tcp", "web:9000")
		c.reaches("client", "udp", "web:9001")
		c.reaches("node", "http", "http://web.default.svc.cluster.local")
		for _, url := range []string{"http://" + address, "http://10.88.7.1:30080"} {
			if got := c.reaches("outside", "http", url).remote(); got != "10.88.7.254" {
				t.Errorf("the server saw %s come from %q, want the outside's own address", url, got)
			}
		}
	})
	t.Run("names", func(t *testing.T) {
		c := c.within(t)
		if a := c.ask("client", "http", "http://nowhere.example.com"); !strings.Contains(a.Error, "no such host") {
			t.Errorf("an unknown name gave %+v", a)
		}
		c.reaches("client", "http", "http://any.wild.outside.test")
	})
	t.Run("the outside sees the pod's own address", func(t *testing.T) {
		c := c.within(t)
		if got := c.reaches("client", "http", "http://allowed.outside.test").remote(); got != pod {
			t.Errorf("it saw %q, want %q", got, pod)
		}
		if log := c.must("outside", "log", "--host", "allowed", "--since", "1m"); !strings.Contains(log, pod) {
			t.Errorf("%s is not in its log:\n%s", pod, log)
		}
		c.reaches("client", "http", "https://other.outside.test", "--insecure")
		c.reaches("client", "grpc", "allowed.outside.test:50051")
	})
	t.Run("logs and status", func(t *testing.T) {
		c := c.within(t)
		if s := c.must("status"); !strings.Contains(s, "kube-apiserver") {
			t.Errorf("status says:\n%s", s)
		}
		if l := c.must("logs", "kubelet"); l == "" {
			t.Error("the kubelet's log is empty")
		}
		c.must("kubectl", "logs", "server")
	})
	t.Run("egress policy", func(t *testing.T) { c.within(t).egress() })
	t.Run("ingress policy", func(t *testing.T) { c.within(t).ingress() })
}

// within is the cluster for a part of the test.
func (c *cluster) within(t *testing.T) *cluster {
	d := *c
	d.t = t
	return &d
}

const egressPolicy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: egress}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
    ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
  - to: [{podSelector: {matchLabels: {app: server}}}]
    ports: [{port: web}]
  - to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.20/32]}}]
    ports: [{port: 80, endPort: 443}]
---
apiVersion: v1
kind: Pod
metadata: {name: first, labels: {app: client}}
spec:
  restartPolicy: Never
  containers: [{name: c, image: "isthmus/testapp:test", args: [http, "http://203.0.113.20", --timeout, 1s]}]
`

func (c *cluster) egress() {
	c.apply(egressPolicy)
	c.must("kubectl", "wait", "--for=jsonpath={.status.phase}=Failed", "pod/first", "--timeout=60s")
	if log := c.must("outside", "log", "--host", "other"); strings.Contains(log, `"kind":"http"`) {
		c.t.Errorf("a pod got out before its policies stood:\n%s", log)
	}
	c.reaches("client", "http", "http://web")
	c.isDenied("client", "tcp", "web:9000")
	c.isDenied("client", "udp", "web:9001")
	c.reaches("client", "http", "http://allowed.outside.test")
	c.reaches("client", "http", "https://any.wild.outside.test", "--insecure")
	c.isDenied("client", "http", "http://other.outside.test")
	c.isDenied("client", "tcp", "allowed.outside.test:9000")
	c.isDenied("client", "udp", "allowed.outside.test:9001")
	c.isDenied("client", "tcp", "10.88.7.1:6443")
	c.isDenied("client", "tcp", "kubernetes.default.svc:443")
	c.reaches("server", "http", "http://other.outside.test")
	c.must("kubectl", "delete", "networkpolicy", "egress")
	c.reaches("client", "udp", "allowed.outside.test:9001")
}

const ingressPolicy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: ingress}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {friend: "yes"}}}]
    ports: [{port: web}]
`

func (c *cluster) ingress() {
	c.apply(ingressPolicy)
	c.must("kubectl", "label", "pod", "client", "friend=yes")
	c.reaches("client", "http", "http://web")
	c.isDenied("client", "tcp", "web:9000")
	c.isDenied("outside", "http", "http://10.88.7.1:30080")
	c.reaches("node", "http", "http://web.default.svc.cluster.local") // as probes come
	c.reaches("server", "http", "http://web")                         // itself, through its Service
	c.must("kubectl", "label", "pod", "client", "friend-")
	c.isDenied("client", "http", "http://web")
}

const switchesPolicy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: egress}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: 10.104.0.0/16}}]
    ports: [{port: 80}]
  - to: [{ipBlock: {cidr: 10.88.8.0/24}}]
---
apiVersion: v1
kind: Pod
metadata: {name: late, labels: {app: client}}
spec:
  restartPolicy: Never
  containers: [{name: c, image: "isthmus/testapp:test", args: [http, "http://203.0.113.20", --timeout, 1s]}]
`

func TestOtherKindsOfNetwork(t *testing.T) {
	t.Parallel()
	devcluster, testapp := build(t)
	c := up(t, devcluster, testapp, "switches", "--index", "8", "--audit",
		"--np-deny", "drop", "--np-window", "5s", "--np-translation", "before", "--np-blocks", "not-node")
	c.apply(pods)
	c.must("kubectl", "wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout=60s")
	service := c.must("kubectl", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	server := c.must("kubectl", "get", "pod", "server", "-o", "jsonpath={.status.podIP}")
	c.apply(switchesPolicy)

	c.must("kubectl", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/late", "--timeout=60s")
	c.isDenied("client", "http", "http://203.0.113.20")
	if a := c.ask("client", "http", "http://203.0.113.20"); !strings.Contains(a.Error, "timeout") && !strings.Contains(a.Error, "deadline") {
		t.Errorf("dropped traffic gave %q, want a timeout", a.Error)
	}
	c.reaches("client", "http", "http://"+service)
	c.isDenied("client", "http", "http://"+server+":8080")
	c.isDenied("client", "tcp", "10.88.8.1:6443")
	if l := c.must("logs", "kube-apiserver"); l == "" {
		t.Error("the API server's log is empty")
	}
	if _, err := os.Stat(filepath.Join(c.dir, c.name, "logs", "audit.jsonl")); err != nil {
		t.Error(err)
	}
}
