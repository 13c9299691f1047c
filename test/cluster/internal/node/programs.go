// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
)

// runtime is the program that starts on every node at once.
func (n *node) runtime() []supervise.Program {
	return []supervise.Program{n.program("containerd", "--config="+n.Own("containerd.toml"))}
}

// controlPlane are the programs that the others wait for.
func (n *node) controlPlane() []supervise.Program {
	return []supervise.Program{
		n.program("etcd", "--data-dir="+n.Path("etcd"),
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync"),
		n.program("kube-apiserver", n.apiserver()...),
	}
}

func (n *node) apiserver() []string {
	pki := func(name string) string { return n.Path("pki", name) }
	args := []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--service-cluster-ip-range=" + n.ServiceCIDRs(),
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"),
		"--service-account-key-file=" + pki("sa.crt"), "--service-account-signing-key-file=" + pki("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--kubelet-client-certificate=" + pki("admin.crt"), "--kubelet-client-key=" + pki("admin.key"),
		"--kubelet-certificate-authority=" + pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--advertise-address=" + n.NodeIP(), "--allow-privileged",
		// One slow machine serves many tests: a queue would only turn load into failures.
		"--enable-priority-and-fairness=false", "--max-requests-inflight=0", "--max-mutating-requests-inflight=0",
	}
	if n.Audit {
		args = append(args, "--audit-policy-file="+n.Path("audit-policy.yaml"), "--audit-log-path="+n.Path("logs", "audit.jsonl"))
	}
	return args
}

// workers are the programs that need the API server to be there.
func (n *node) workers() []supervise.Program {
	all := []supervise.Program{
		n.program("kubelet",
			"--config="+n.Own("kubelet.yaml"), "--kubeconfig="+n.Own("kubelet.kubeconfig"),
			"--hostname-override="+n.Host(), "--node-ip="+strings.Join(n.IPs(), ",")),
		n.program("kube-proxy", "--config="+n.Own("kube-proxy.yaml")),
	}
	if n.ControlPlane() {
		all = append(all, n.managers()...)
	}
	return all
}

func (n *node) managers() []supervise.Program {
	return []supervise.Program{
		n.program("kube-controller-manager",
			"--kubeconfig="+n.Path("controller-manager.kubeconfig"),
			"--service-account-private-key-file="+n.Path("pki", "sa.key"), "--root-ca-file="+n.Path("pki", "ca.crt"),
			"--cluster-signing-cert-file="+n.Path("pki", "ca.crt"), "--cluster-signing-key-file="+n.Path("pki", "ca.key"),
			"--use-service-account-credentials", "--leader-elect=false",
			"--flex-volume-plugin-dir="+n.Path("volumeplugins"), "--kube-api-qps=300", "--kube-api-burst=600"),
		n.program("kube-scheduler", "--kubeconfig="+n.Path("scheduler.kubeconfig"), "--leader-elect=false"),
	}
}

func (n *node) program(name string, args ...string) supervise.Program {
	return supervise.Program{Name: name, Path: n.Binary(name), Args: args}
}
