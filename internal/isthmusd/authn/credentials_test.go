// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"testing"
	"time"

	"crypto/rand"

	"google.golang.org/grpc/credentials"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

func TestConnectionEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	root, k := newRoot(t), key(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := root.Sign(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), cart, pki.Validity{Now: now, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := pki.ParseCertificates([]byte(chain[0]))
	if err != nil {
		t.Fatal(err)
	}
	serving, err := root.IssueServing(pki.ServingOptions{DNSNames: []string{"isthmusd"}, Validity: pki.Validity{Now: now, TTL: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	c := clocktesting.NewFakeClock(now)
	server := authn.NewCredentials(&tls.Config{Certificates: []tls.Certificate{*serving}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}, c)
	client := credentials.NewTLS(&tls.Config{
		RootCAs: root.Pool(), ServerName: "isthmusd", MinVersion: tls.VersionTLS12, Time: func() time.Time { return now },
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf[0].Raw}, PrivateKey: k}},
	})
	near, far := net.Pipe()
	accepted := make(chan error, 1)
	go func() {
		conn, info, err := server.Clone().ServerHandshake(far)
		if err == nil && len(info.(credentials.TLSInfo).State.PeerCertificates) != 1 {
			err = io.ErrUnexpectedEOF
		}
		accepted <- err
		_, _ = io.Copy(io.Discard, conn)
	}()
	conn, _, err := client.ClientHandshake(t.Context(), "isthmusd", near)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	c.Step(59 * time.Minute)
	if _, err := conn.Write([]byte("still open")); err != nil {
		t.Fatalf("before its end: %v", err)
	}
	ended := make(chan error)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	c.Step(2 * time.Minute)
	if err := <-ended; err == nil {
		t.Error("the connection outlived its certificate")
	}
}
