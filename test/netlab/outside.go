// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// authority is a CA of the world outside the mesh.
type authority struct {
	dir  string
	file string // of the root certificate
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	made int64
}

func newAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &authority{dir: dir, file: filepath.Join(dir, "outside-ca.pem"), key: key}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "outside"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// issue writes a certificate for these names and its key, and returns the files.
func (a *authority) issue(names ...string) (cert, key string, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	a.made++
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.made), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, k.Public(), a.key)
	if err != nil {
		return "", "", err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", "", err
	}
	cert = filepath.Join(a.dir, fmt.Sprintf("outside-%d.pem", a.made))
	key = filepath.Join(a.dir, fmt.Sprintf("outside-%d-key.pem", a.made))
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return "", "", err
	}
	return cert, key, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o644) //nolint:gosec // applications of other users read it
}

// OutsideCA is the file of the root that signs hosts outside.
func (l *Lab) OutsideCA() string { return l.outside.file }

// OutsideRoot is the certificate in OutsideCA.
func (l *Lab) OutsideRoot() []byte {
	l.t.Helper()
	b, err := os.ReadFile(l.outside.file)
	l.must(err)
	return b
}

// Certificate makes a certificate of the outside CA for these names, in PEM.
func (l *Lab) Certificate(names ...string) (cert, key []byte) {
	l.t.Helper()
	c, k, err := l.outside.issue(names...)
	l.must(err)
	cert, err = os.ReadFile(c)
	l.must(err)
	key, err = os.ReadFile(k)
	l.must(err)
	return cert, key
}

// Host starts a host outside the mesh that has these names (a leading "*." is a
// wildcard) and speaks HTTP on 80 and 8080, HTTPS on 443, lines of TCP on 9000 and
// gRPC on 50051.
func (l *Lab) Host(names ...string) *Pod {
	l.t.Helper()
	return l.host(netip.AddrFrom4([4]byte{192, 0, 2, byte(len(l.hosts) + 1)}), names)
}

// Host6 starts such a host that has an address of IPv6 only.
func (l *Lab) Host6(names ...string) *Pod {
	l.t.Helper()
	return l.host(sixth("2001:db8::", netip.AddrFrom4([4]byte{0, 0, 0, byte(len(l.hosts) + 1)})), names)
}

// Silent gives the name an address at which nothing answers: what is sent there
// vanishes.
func (l *Lab) Silent(name string) { l.dns.set(name, silentAddress) }

func (l *Lab) host(ip netip.Addr, names []string) *Pod {
	l.t.Helper()
	cert, key, err := l.outside.issue(names...)
	l.must(err)
	p := &Pod{lab: l, PodSpec: PodSpec{Name: fmt.Sprintf("outside-%d", len(l.hosts)+1), Namespace: "outside"}, IP: ip, Hosts: names}
	p.space, err = l.space("outside", nil, ip)
	l.must(err)
	p.app, err = start(p.space, program{name: p.Name, uid: uidApp, dir: l.dir, args: append(
		[]string{l.program("testapp"), "serve", "--name", names[0], "--cert", cert, "--key", key},
		"--http", ":80,:8080", "--https", ":443", "--tcp", ":9000", "--grpc", ":50051")}, l.logs())
	l.must(err)
	for _, n := range names {
		l.dns.set(n, ip)
	}
	l.hosts = append(l.hosts, p)
	return p
}
