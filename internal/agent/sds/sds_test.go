// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package sds_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/go-logr/logr/testr"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/internal/agent/sds"
)

// serve starts a server on a socket and returns its store, a client, and the root
// under which files lie.
func serve(t *testing.T) (*sds.Store, secretv3.SecretDiscoveryServiceClient, string) {
	t.Helper()
	root := t.TempDir()
	dir, err := os.MkdirTemp("", "sds") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	store := sds.NewStore()
	l, err := sds.Listen(filepath.Join(dir, "d", "socket"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sds.NewServer(store, root, testr.New(t)).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient("unix:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return store, secretv3.NewSecretDiscoveryServiceClient(conn), root
}

func secret(t *testing.T, a *anypb.Any) *tlsv3.Secret {
	t.Helper()
	s := &tlsv3.Secret{}
	if err := a.UnmarshalTo(s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFullProtocol(t *testing.T) {
	t.Parallel()
	store, client, _ := serve(t)
	st, err := client.StreamSecrets(t.Context())
	must(t, err)
	ask := func(r *discoveryv3.DiscoveryRequest) { t.Helper(); must(t, st.Send(r)) }
	next := func() *discoveryv3.DiscoveryResponse {
		t.Helper()
		r, err := st.Recv()
		must(t, err)
		return r
	}
	names := []string{"default"}
	ask(&discoveryv3.DiscoveryRequest{ResourceNames: names}) // nothing to answer yet
	must(t, store.SetCertificate("default", []byte("one"), []byte("key")))
	r := next()
	if s := secret(t, r.GetResources()[0]); string(s.GetTlsCertificate().GetCertificateChain().GetInlineBytes()) != "one" {
		t.Fatalf("first secret: %v", s)
	}
	ask(&discoveryv3.DiscoveryRequest{ResourceNames: names, ResponseNonce: r.GetNonce(), VersionInfo: r.GetVersionInfo()})
	must(t, store.SetCertificate("default", []byte("one"), []byte("key"))) // no change, no response
	must(t, store.SetCertificate("default", []byte("two"), []byte("key")))
	r = next()
	if s := secret(t, r.GetResources()[0]); string(s.GetTlsCertificate().GetCertificateChain().GetInlineBytes()) != "two" {
		t.Fatalf("second secret: %v", s)
	}
	// A refusal is not answered; other names are.
	ask(&discoveryv3.DiscoveryRequest{ResourceNames: names, ResponseNonce: r.GetNonce(), ErrorDetail: &statuspb.Status{Message: "bad"}})
	must(t, store.SetRoots("ROOTCA", []byte("roots")))
	ask(&discoveryv3.DiscoveryRequest{ResourceNames: []string{"default", "ROOTCA"}, ResponseNonce: r.GetNonce()})
	if r = next(); len(r.GetResources()) != 2 {
		t.Fatalf("got %d secrets, want 2", len(r.GetResources()))
	}
}

func TestDeltaProtocol(t *testing.T) {
	t.Parallel()
	store, client, _ := serve(t)
	must(t, store.SetCertificate("default", []byte("one"), []byte("key")))
	st, err := client.DeltaSecrets(t.Context())
	must(t, err)
	must(t, st.Send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"default", "ROOTCA"}}))
	r, err := st.Recv()
	must(t, err)
	if len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != "default" {
		t.Fatalf("first response: %v", r)
	}
	must(t, st.Send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: r.GetNonce()}))
	must(t, store.SetRoots("ROOTCA", []byte("roots")))
	if r, err = st.Recv(); err != nil || len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != "ROOTCA" {
		t.Fatalf("second response: %v %v", r, err)
	}
	version := r.GetResources()[0].GetVersion()

	// A client that comes back with what it has gets only what it lacks.
	st, err = client.DeltaSecrets(t.Context())
	must(t, err)
	must(t, st.Send(&discoveryv3.DeltaDiscoveryRequest{
		ResourceNamesSubscribe:  []string{"default", "ROOTCA"},
		InitialResourceVersions: map[string]string{"ROOTCA": version},
	}))
	if r, err = st.Recv(); err != nil || len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != "default" {
		t.Fatalf("after reconnecting: %v %v", r, err)
	}
}

func TestFileSecrets(t *testing.T) {
	t.Parallel()
	_, client, root := serve(t)
	cert, key := pair(t)
	must(t, os.Mkdir(filepath.Join(root, "certs"), 0o755))
	st, err := client.DeltaSecrets(t.Context())
	must(t, err)
	name := "file-cert:/certs/tls.crt~/certs/tls.key"
	must(t, st.Send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{name, "file-root:/certs/ca.crt", "file-cert:/no-key"}}))
	write := func(f string, b []byte) { t.Helper(); must(t, os.WriteFile(filepath.Join(root, "certs", f), b, 0o600)) }
	write("tls.crt", cert) // without its key it's not yet a secret
	write("tls.key", key)
	r, err := st.Recv()
	must(t, err)
	if len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != name {
		t.Fatalf("got %v, want the pair", r)
	}
	write("ca.crt", cert)
	if r, err = st.Recv(); err != nil || r.GetResources()[0].GetName() != "file-root:/certs/ca.crt" {
		t.Fatalf("got %v %v, want the root", r, err)
	}
}

func pair(t *testing.T) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
