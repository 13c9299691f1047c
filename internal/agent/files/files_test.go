// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// TestSymlinkSwap replaces a file as the kubelet does.
func TestSymlinkSwap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(version, content string) {
		d := filepath.Join(dir, version)
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "f"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(version, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	put("..1", "one")
	if err := os.Symlink("..data/f", filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan string, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, []string{filepath.Join(dir, "f"), filepath.Join(dir, "absent")}, func(c [][]byte) {
			if c[1] != nil {
				t.Error("an absent file has content")
			}
			got <- string(c[0])
		})
	}()
	if s := <-got; s != "one" {
		t.Fatalf("first content %q", s)
	}
	put("..2", "two")
	if s := <-got; s != "two" {
		t.Fatalf("second content %q", s)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
