// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package binaries

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFingerprintIsOfWhatDecidesTheBinaries(t *testing.T) {
	t.Parallel()
	write := func(dir, name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	module := func() string {
		dir := t.TempDir()
		for _, f := range []string{"go.mod", "go.sum", "etcd/main.go", "hyperkube/main.go"} {
			write(dir, f, f)
		}
		return dir
	}
	key := func(dir string) string {
		k, err := fingerprint(dir, cluster())
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	want := key(module())
	cases := map[string]struct {
		file string
		same bool
	}{
		"the command is in none of them":   {"cmd/devcluster/main.go", true},
		"tests are in none of them":        {"etcd/main_test.go", true},
		"a dependency's version":           {"go.sum", false},
		"what a main package imports":      {"internal/gate/gate.go", false},
		"a main package":                   {"hyperkube/main.go", false},
		"another file of a main package":   {"etcd/more.go", false},
		"a requirement without a checksum": {"go.mod", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := module()
			write(dir, c.file, "changed")
			if got := key(dir); (got == want) != c.same {
				t.Errorf("same fingerprint: %t, want %t", got == want, c.same)
			}
		})
	}
}
