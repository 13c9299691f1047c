// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package acceptance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each server says on which node it runs.
const twoNodes = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, matchLabelKeys: [pod-template-hash], labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: c
        image: isthmus/testapp:test
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        args: [serve, --name, $(NODE), --http, ":8080"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: single, labels: {app: single}}
spec:
  nodeName: node2
  containers:
  - name: c
    image: isthmus/testapp:test
    env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
    args: [serve, --name, $(NODE), --http, ":8080"]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client1, labels: {app: client1}}
spec: {nodeName: node1, containers: [{name: c, image: "isthmus/testapp:test", args: [pause]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client2, labels: {app: client2}}
spec: {nodeName: node2, containers: [{name: c, image: "isthmus/testapp:test", args: [pause]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}], internalTrafficPolicy: Local}
---
apiVersion: v1
kind: Service
metadata: {name: single}
spec: {selector: {app: single}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: single-near}
spec: {selector: {app: single}, ports: [{port: 80, targetPort: 8080}], internalTrafficPolicy: Local}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: single}, ports: [{port: 80, targetPort: 8080, nodePort: 30081}]}
---
apiVersion: v1
kind: Service
metadata: {name: cluster}
spec: {type: LoadBalancer, externalTrafficPolicy: Cluster, selector: {app: single}, ports: [{port: 80, targetPort: 8080, nodePort: 30082}]}
`

func TestTwoNodes(t *testing.T) {
	t.Parallel()
	devcluster, testapp := build(t)
	c := up(t, devcluster, testapp, "nodes", "--index", "9", "--nodes", "2")
	c.apply(twoNodes)
	c.must("kubectl", "rollout", "status", "deployment/web", "--timeout=300s")
	c.must("kubectl", "wait", "--for=condition=Ready", "pod/single", "pod/client1", "pod/client2", "--timeout=300s")

	t.Run("pods are spread", func(t *testing.T) { c.within(t).isSpread() })
	t.Run("traffic inside", func(t *testing.T) { c.within(t).inside() })
	t.Run("traffic from outside", func(t *testing.T) { c.within(t).fromOutside() })
	t.Run("policies", func(t *testing.T) { c.within(t).policies() })
	t.Run("a snapshot", func(t *testing.T) { c.within(t).snapshot() })
	t.Run("drain", func(t *testing.T) { c.within(t).drain() })
	t.Run("kill programs", func(t *testing.T) { c.within(t).killPrograms() })
	t.Run("kill a node", func(t *testing.T) { c.within(t).killNode() })
}

// serving are the nodes that the deployment's pods run on.
func (c *cluster) serving() []string {
	c.t.Helper()
	nodes := strings.Fields(c.must("kubectl", "get", "pods", "--selector", "app=web", "--field-selector", "status.phase=Running",
		"-o", "jsonpath={.items[*].spec.nodeName}"))
	slices.Sort(nodes)
	return nodes
}

func (c *cluster) isSpread() {
	c.t.Helper()
	var got []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if got = c.serving(); slices.Equal(got, []string{"node1", "node2"}) {
			return
		}
	}
	c.t.Errorf("the pods are on %v, want one on each node", got)
}

func (c *cluster) loadBalancer(service string) string {
	c.t.Helper()
	return "http://" + c.must("kubectl", "wait", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", "service/"+service, "--timeout=60s",
		"-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
}

func (c *cluster) inside() {
	c.reaches("client1", "http", "http://single")
	c.reaches("client2", "http", "http://single")
	for client, node := range map[string]string{"client1": "node1", "client2": "node2"} {
		for range 5 {
			if got := c.reaches(client, "http", "http://web").name(); got != node {
				c.t.Errorf("internalTrafficPolicy Local on %s led to %q", node, got)
			}
		}
	}
	c.reaches("client2", "http", "http://single-near")
	c.isDenied("client1", "http", "http://single-near")
	address := c.must("kubectl", "get", "pod", "client1", "-o", "jsonpath={.status.podIP}")
	if got := c.reaches("client1", "http", "http://single").remote(); got != address {
		c.t.Errorf("a pod of another node saw %q, want the pod's own address %s", got, address)
	}
}

// fromOutside reaches a pod on the second node. Its client's address is kept where
// the Service says so, and then only that node answers.
func (c *cluster) fromOutside() {
	const router = "10.88.9.254"
	for _, url := range []string{c.loadBalancer("local"), "http://10.88.9.2:30081"} {
		if got := c.reaches("outside", "http", url).remote(); got != router {
			c.t.Errorf("with externalTrafficPolicy Local the server saw %s come from %q, want %s", url, got, router)
		}
	}
	c.isDenied("outside", "http", "http://10.88.9.1:30081")
	for _, url := range []string{c.loadBalancer("cluster"), "http://10.88.9.1:30082", "http://10.88.9.2:30082"} {
		c.reaches("outside", "http", url)
	}
	if got := c.reaches("outside", "http", "http://10.88.9.1:30082").remote(); got == router {
		c.t.Error("with externalTrafficPolicy Cluster the client's address came through to another node's pod")
	}
}

const nodePolicies = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: ingress}
spec:
  podSelector: {matchLabels: {app: single}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client1}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: egress}
spec:
  podSelector: {matchLabels: {app: client1}}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
  - to: [{podSelector: {matchLabels: {app: single}}}]
`

// policies are enforced where the pod is, whichever node the other end is on.
func (c *cluster) policies() {
	c.apply(nodePolicies)
	c.isDenied("client2", "http", "http://single")
	c.isDenied("client1", "http", "http://web")
	c.reaches("client1", "http", "http://single")
	c.reaches("client2", "http", "http://web")
	c.must("kubectl", "delete", "networkpolicy", "ingress", "egress")
	c.reaches("client2", "http", "http://single")
	c.reaches("client1", "http", "http://web")
}

func (c *cluster) drain() {
	c.must("kubectl", "drain", "node2", "--force", "--timeout=60s", "--pod-selector=app=web")
	if got := c.serving(); slices.Contains(got, "node2") {
		c.t.Errorf("after node2 was drained pods are on %v", got)
	}
	c.must("kubectl", "uncordon", "node2")
	c.isSpread()
}

// works lets everything take part: what is killed has to start again for it.
func (c *cluster) works() {
	c.t.Helper()
	c.must("status", "--wait", "300s")
	c.must("kubectl", "rollout", "restart", "deployment/web")
	c.must("kubectl", "rollout", "status", "deployment/web", "--timeout=300s")
	c.reaches("client1", "http", "http://web")
	c.reaches("client2", "http", "http://single")
}

func (c *cluster) snapshot() {
	file := filepath.Join(c.dir, "snapshot")
	c.must("kubectl", "create", "configmap", "before")
	c.must("snapshot", file)
	c.must("kubectl", "create", "configmap", "after")
	c.must("kubectl", "delete", "configmap", "before")
	c.must("kubectl", "run", "late", "--image=isthmus/testapp:test", "--", "pause")
	c.must("restore", file)
	got := strings.Fields(c.must("kubectl", "get", "configmap,pod", "-o", "name"))
	if !slices.Contains(got, "configmap/before") || slices.Contains(got, "configmap/after") || slices.Contains(got, "pod/late") {
		c.t.Errorf("after it was restored there are %v", got)
	}
	c.works()
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.run("restore", file); err == nil || !strings.Contains(err.Error(), "no snapshot") {
		c.t.Errorf("restoring what is no snapshot gave %v", err)
	}
	c.must("kubectl", "get", "configmap", "before")
}

// killPrograms kills in groups, so that each has to start without others that it
// talks to.
func (c *cluster) killPrograms() {
	for _, group := range [][]string{
		{"etcd", "apiserver"},
		{"kubelet", "containerd", "scheduler"},
		{"controller-manager", "proxy", "coredns"},
	} {
		for _, program := range group {
			c.must("kill", program)
		}
		c.works()
	}
	c.must("kill", "scheduler", "--signal", "ABRT", "--no-restart")
	out, err := c.run("status")
	if err == nil || !strings.Contains(out, "held") {
		c.t.Errorf("with a program held, status gave %v and says:\n%s", err, out)
	}
	c.must("start", "scheduler")
	status := c.must("status", "--wait", "300s")
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); f[0] == "node1" && f[3] == "0" {
			c.t.Errorf("not killed: %s", line)
		}
	}
	if log := c.must("logs", "kube-scheduler"); !strings.Contains(log, "SIGABRT") {
		c.t.Error("the trace of the program that was aborted is not in its log")
	}
}

func (c *cluster) killNode() {
	c.must("kill", "node", "node2")
	c.works()
	c.must("kill", "node", "node1") // etcd, the API server and all others of its
	c.works()
	c.must("kill", "node", "node2", "--no-restart")
	out, err := c.run("status")
	if err == nil || !strings.Contains(out, "off") {
		c.t.Errorf("with a node off, status gave %v and says:\n%s", err, out)
	}
	c.isDenied("outside", "http", "http://10.88.9.2:30082")
	c.must("start", "node", "node2")
	c.works()
	c.reaches("outside", "http", "http://10.88.9.2:30082")
}
