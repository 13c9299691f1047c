// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto/x509"
	"errors"
	"net/url"
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/identity"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		in      string
		want    identity.SPIFFE
		wantErr bool
	}{
		"an Istio identity": {
			in:   "spiffe://cluster.local/ns/shop/sa/cart",
			want: identity.SPIFFE{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "cart"},
		},
		"another scheme":          {in: "https://cluster.local/ns/shop/sa/cart", wantErr: true},
		"a path of another shape": {in: "spiffe://cluster.local/workload/cart", wantErr: true},
		"one segment too many":    {in: "spiffe://cluster.local/ns/shop/sa/cart/x", wantErr: true},
		"an empty namespace":      {in: "spiffe://cluster.local/ns//sa/cart", wantErr: true},
		"no trust domain":         {in: "spiffe:///ns/shop/sa/cart", wantErr: true},
		"nothing":                 {wantErr: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := identity.Parse(tc.in)
			if (err != nil) != tc.wantErr {
				t.Fatalf("Parse(%q) error = %v, want error %v", tc.in, err, tc.wantErr)
			}
			if got != tc.want {
				t.Errorf("Parse(%q) = %+v, want %+v", tc.in, got, tc.want)
			}
			if err == nil && got.String() != tc.in {
				t.Errorf("String() = %q, want %q", got.String(), tc.in)
			}
		})
	}
}

func TestFromSubject(t *testing.T) {
	t.Parallel()
	got, err := identity.FromSubject("td", "system:serviceaccount:shop:cart")
	if err != nil || got.String() != "spiffe://td/ns/shop/sa/cart" {
		t.Fatalf("FromSubject = %v, %v", got, err)
	}
	for _, bad := range []string{"", "system:node:n", "system:serviceaccount:shop", "system:serviceaccount:a/b:c", "system:serviceaccount::c"} {
		if id, err := identity.FromSubject("td", bad); err == nil {
			t.Errorf("FromSubject(%q) = %v, want an error", bad, id)
		}
	}
}

func TestFromCertificate(t *testing.T) {
	t.Parallel()
	want := identity.SPIFFE{TrustDomain: "td", Namespace: "a", ServiceAccount: "b"}
	got, err := identity.FromCertificate(&x509.Certificate{URIs: []*url.URL{want.URL()}})
	if err != nil || got != want {
		t.Fatalf("FromCertificate = %v, %v, want %v", got, err, want)
	}
	if _, err := identity.FromCertificate(&x509.Certificate{}); !errors.Is(err, identity.ErrNoIdentity) {
		t.Errorf("without a name: error = %v, want ErrNoIdentity", err)
	}
	if _, err := identity.FromCertificate(&x509.Certificate{URIs: []*url.URL{want.URL(), want.URL()}}); err == nil {
		t.Error("two names were accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/shop/sa/cart")
	f.Add("spiffe://a/ns/b/sa/")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := identity.Parse(s)
		if err != nil {
			return
		}
		again, err := identity.Parse(id.String())
		if err != nil || again != id {
			t.Errorf("%q parsed to %+v, which parses to %+v, %v", s, id, again, err)
		}
	})
}
