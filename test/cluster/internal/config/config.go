// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package config writes what the cluster's programs read: certificates,
// kubeconfigs and configuration files, all below the cluster's directory.
package config

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/pki"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

//go:embed files
var files embed.FS

// Write writes everything. access is where the kubeconfig for people and tests
// goes, which reaches the API server from the host.
func Write(c spec.Cluster, access string) error {
	dirs := []string{c.Path("pki"), c.Path("etcd"), c.Path("volumeplugins"), c.Path("dns")}
	for _, cell := range c.Cells() {
		dirs = append(dirs, c.LogDir(cell), c.CellPath(cell, "cg"), c.CellPath(cell, "var/lib"), c.CellPath(cell, "var/log"))
	}
	for _, n := range c.Machines() {
		for _, d := range []string{"cni", "manifests", "ctd", "var/lib/kubelet", "var/lib/cni", "var/log/pods", "var/log/containers"} {
			dirs = append(dirs, n.Own(d))
		}
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	ca, err := pki.NewAuthority("devcluster-" + c.Name)
	if err != nil {
		return fmt.Errorf("make the cluster's authority: %w", err)
	}
	if err := writeShared(c, ca); err != nil {
		return err
	}
	for _, n := range c.Machines() {
		if err := writeNode(n, ca); err != nil {
			return fmt.Errorf("configure %s: %w", n.Host(), err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(access), 0o755); err != nil {
		return fmt.Errorf("make directory for kubeconfig: %w", err)
	}
	return writeKubeconfig(access, fmt.Sprintf("https://127.0.0.1:%d", c.APIPort), ca, c.Path("pki", "admin"))
}

// writeShared writes what is read on more nodes than one, or by the control plane.
func writeShared(c spec.Cluster, ca *pki.Authority) error {
	if err := writePKI(c, ca); err != nil {
		return err
	}
	for _, name := range []string{"resolv.conf", "audit-policy.yaml"} {
		if err := render(c, name, c.Path(name)); err != nil {
			return err
		}
	}
	for _, u := range users() {
		if err := writeKubeconfig(c.Path(u.file+".kubeconfig"), "https://"+c.APIServer(), ca, c.Path("pki", u.file)); err != nil {
			return err
		}
	}
	return nil
}

func writeNode(n spec.Node, ca *pki.Authority) error {
	err := issue(ca, n.Own("kubelet"), pki.Subject{
		CommonName: "system:node:" + n.Host(), Organization: []string{"system:nodes"},
		DNS: []string{n.Host()}, IPs: n.IPs(),
	})
	if err != nil {
		return err
	}
	for name, path := range map[string]string{
		"containerd.toml": n.Own("containerd.toml"),
		"10-ptp.conflist": n.Own("cni", "10-ptp.conflist"),
		"kubelet.yaml":    n.Own("kubelet.yaml"),
		"kube-proxy.yaml": n.Own("kube-proxy.yaml"),
	} {
		if err := render(n, name, path); err != nil {
			return err
		}
	}
	return writeKubeconfig(n.Own("kubelet.kubeconfig"), "https://"+n.APIServer(), ca, n.Own("kubelet"))
}

// Text renders one of the package's templates for a cluster or a node.
func Text(of any, name string) ([]byte, error) {
	t, err := template.ParseFS(files, "files/"+name)
	if err != nil {
		return nil, fmt.Errorf("parse template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, of); err != nil {
		return nil, fmt.Errorf("render template: %w", err)
	}
	return b.Bytes(), nil
}

func render(of any, name, path string) error {
	b, err := Text(of, name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// user is a client of the API server.
type user struct {
	file, name, group string
}

func users() []user {
	return []user{
		{"admin", "admin", "system:masters"},
		{"controller-manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"proxy", "system:kube-proxy", ""},
	}
}

func writePKI(c spec.Cluster, ca *pki.Authority) error {
	if err := ca.Pair.WriteTo(c.Path("pki", "ca")); err != nil {
		return err //nolint:wrapcheck // says all
	}
	err := issue(ca, c.Path("pki", "apiserver"), pki.Subject{
		CommonName: "kube-apiserver",
		DNS:        []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"},
		IPs:        []string{"127.0.0.1", c.APIServiceIP(), c.NodeIP()},
	})
	if err != nil {
		return err
	}
	for _, u := range users() {
		s := pki.Subject{CommonName: u.name}
		if u.group != "" {
			s.Organization = []string{u.group}
		}
		if err := issue(ca, c.Path("pki", u.file), s); err != nil {
			return err
		}
	}
	private, public, err := pki.NewSigningKey()
	if err != nil {
		return err //nolint:wrapcheck // says all
	}
	return pki.Pair{Cert: public, Key: private}.WriteTo(c.Path("pki", "sa")) //nolint:wrapcheck // says all
}

// issue writes a new certificate and its key to path.crt and path.key.
func issue(ca *pki.Authority, path string, s pki.Subject) error {
	pair, err := ca.Issue(s)
	if err != nil {
		return err //nolint:wrapcheck // says all
	}
	return pair.WriteTo(path) //nolint:wrapcheck // says all
}

// writeKubeconfig writes one that needs no other file.
func writeKubeconfig(path, server string, ca *pki.Authority, pair string) error {
	cert, err := os.ReadFile(pair + ".crt")
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	key, err := os.ReadFile(pair + ".key")
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	b64 := base64.StdEncoding.EncodeToString
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: devcluster
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: devcluster
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: devcluster
  context: {cluster: devcluster, user: devcluster}
current-context: devcluster
`, server, b64(ca.Pair.Cert), b64(cert), b64(key))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
