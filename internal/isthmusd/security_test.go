// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ca"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

// line is a root and two intermediates of the same key under it: they differ in
// nothing but their certificates.
type line struct{ root, first, second []byte }

func newLine(t *testing.T) (l line, data func(certs ...[]byte) map[string][]byte) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	rootKey, middleKey, leafKey := key(), key(), key()
	now := time.Now()
	serial := int64(0)
	issue := func(name string, k *ecdsa.PrivateKey, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *x509.Certificate) {
		serial++
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, k.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), cert
	}
	rootPEM, root := issue("root", rootKey, nil, rootKey)
	first, middle := issue("middle", middleKey, root, rootKey)
	second, _ := issue("middle", middleKey, root, rootKey)
	cert, _ := issue("CA", leafKey, middle, middleKey)
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	base := map[string][]byte{
		pki.KeyPrivate: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		pki.KeyCert:    cert, pki.KeyRoot: rootPEM,
	}
	return line{rootPEM, first, second}, func(chain ...[]byte) map[string][]byte {
		out := maps.Clone(base)
		out[pki.KeyChain] = bytes.Join(chain, nil)
		return out
	}
}

func TestAChangedCAIsTakenOver(t *testing.T) {
	t.Parallel()
	l, data := newLine(t)
	other, _ := newLine(t)
	moreRoots := data(l.first)
	moreRoots[pki.KeyRoot] = append(bytes.Clone(l.root), other.root...)
	first, err := pki.Load(data(l.first), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	own := pki.Fingerprint(first.Roots()[0])
	record := func(root []byte, print string) *pki.Published {
		return publishedBy(&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.AnnotationFingerprint: print}}, Data: map[string]string{pki.KeyRoot: string(root)},
		})
	}
	made, err := pki.NewRoot(pki.RootOptions{Organization: "other", Validity: pki.Validity{Now: time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := made.Data()
	if err != nil {
		t.Fatal(err)
	}
	broken := data(l.first)
	broken[pki.KeyPrivate] = []byte("no key")
	tests := map[string]struct {
		data        map[string][]byte
		published   *pki.Published
		wantChanged bool
		wantErr     bool
	}{
		"the same":                         {data: data(l.first)},
		"another chain":                    {data: data(l.second), wantChanged: true},
		"one more root":                    {data: moreRoots, wantChanged: true},
		"what cannot be used":              {data: broken, wantErr: true},
		"the published root":               {data: data(l.second), published: record(l.root, ""), wantChanged: true},
		"another root than published":      {data: foreign, published: record(l.root, ""), wantErr: true},
		"another root, none published":     {data: foreign, wantChanged: true},
		"a published root that was edited": {data: data(l.second), published: record([]byte("edited"), own), wantChanged: true},
		"edited, and another root":         {data: foreign, published: record([]byte("edited"), own), wantErr: true},
		"nothing that can be read":         {data: data(l.second), published: record(nil, ""), wantErr: true},
		"a chain that leads nowhere":       {data: data(other.first), wantErr: true},
		"the same with blanks around":      {data: data([]byte("\n"), l.first, []byte("\n"))},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := pki.Load(data(l.first), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			a := ca.New(ca.Options{Bundle: b})
			changed, err := takeCA(a, tc.data, tc.published, time.Now())
			if changed != tc.wantChanged || (err != nil) != tc.wantErr || (a.Bundle() != b) != tc.wantChanged {
				t.Errorf("changed %v (bundle %v), error %v", changed, a.Bundle() != b, err)
			}
		})
	}
}
