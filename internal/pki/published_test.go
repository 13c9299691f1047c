// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/pki"
)

func TestPublishedRoots(t *testing.T) {
	t.Parallel()
	own, other := root(t), root(t)
	print := pki.Fingerprint(own.Roots()[0])
	for name, tt := range map[string]struct {
		text        []byte
		fingerprint string
		want        bool
	}{
		"the root itself":                      {text: own.RootPEM(), want: true},
		"the root among others":                {text: slices.Concat(other.RootPEM(), own.RootPEM()), want: true},
		"another root":                         {text: other.RootPEM(), fingerprint: pki.Fingerprint(other.Roots()[0])},
		"an edited text beside its print":      {text: other.RootPEM(), fingerprint: print, want: true},
		"a text that is none beside its print": {text: []byte("edited"), fingerprint: print, want: true},
		"a text that is none":                  {text: []byte("edited")},
		"nothing":                              {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := pki.ReadPublished(tt.text, tt.fingerprint).Knows(own.Roots()); got != tt.want {
				t.Errorf("known: %t", got)
			}
		})
	}
}
