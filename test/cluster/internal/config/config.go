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
	for _, d := range []string{
		"pki", "etcd", "logs", "cni", "manifests", "var/lib/kubelet", "var/lib/cni", "var/log/pods",
		"var/log/containers", "ctd", "cg", "volumeplugins", "dns", "outside",
	} {
		if err := os.MkdirAll(c.Path(d), 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	ca, err := writePKI(c)
	if err != nil {
		return err
	}
	for _, n := range []string{"containerd.toml", "10-ptp.conflist", "kubelet.yaml", "kube-proxy.yaml", "resolv.conf", "audit-policy.yaml"} {
		if err := render(c, n); err != nil {
			return err
		}
	}
	for _, u := range users() {
		if err := writeKubeconfig(c.Path(u.file+".kubeconfig"), "https://"+c.APIServer(), ca, c.Path("pki", u.file)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(access), 0o755); err != nil {
		return fmt.Errorf("make directory for kubeconfig: %w", err)
	}
	return writeKubeconfig(access, fmt.Sprintf("https://127.0.0.1:%d", c.APIPort), ca, c.Path("pki", "admin"))
}

// Text renders one of the package's templates for the cluster.
func Text(c spec.Cluster, name string) ([]byte, error) {
	t, err := template.ParseFS(files, "files/"+name)
	if err != nil {
		return nil, fmt.Errorf("parse template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, c); err != nil {
		return nil, fmt.Errorf("render template: %w", err)
	}
	return b.Bytes(), nil
}

func render(c spec.Cluster, name string) error {
	b, err := Text(c, name)
	if err != nil {
		return err
	}
	path := c.Path(name)
	if filepath.Ext(name) == ".conflist" {
		path = c.Path("cni", name)
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
		{"kubelet", "system:node:" + spec.Node, "system:nodes"},
		{"controller-manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"proxy", "system:kube-proxy", ""},
	}
}

func writePKI(c spec.Cluster) (*pki.Authority, error) {
	ca, err := pki.NewAuthority("devcluster-" + c.Name)
	if err != nil {
		return nil, err
	}
	if err := ca.Pair.WriteTo(c.Path("pki", "ca")); err != nil {
		return nil, err
	}
	subjects := map[string]pki.Subject{"apiserver": {
		CommonName: "kube-apiserver",
		DNS:        []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"},
		IPs:        []string{"127.0.0.1", c.APIServiceIP(), c.NodeIP()},
	}}
	for _, u := range users() {
		s := pki.Subject{CommonName: u.name}
		if u.group != "" {
			s.Organization = []string{u.group}
		}
		if u.file == "kubelet" {
			s.DNS, s.IPs = []string{spec.Node}, []string{c.NodeIP()}
		}
		subjects[u.file] = s
	}
	for name, s := range subjects {
		pair, err := ca.Issue(s)
		if err != nil {
			return nil, err
		}
		if err := pair.WriteTo(c.Path("pki", name)); err != nil {
			return nil, err
		}
	}
	private, public, err := pki.NewSigningKey()
	if err != nil {
		return nil, err
	}
	return ca, pki.Pair{Cert: public, Key: private}.WriteTo(c.Path("pki", "sa"))
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
