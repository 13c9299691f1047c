// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package binaries finds the programs that make puts into the repository's bin
// directory, for the tests that run them.
package binaries

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Find is the path of a program.
func Find(name string) (string, error) {
	dir, err := root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("not built (make build tools): %w", err)
	}
	return path, nil
}

// Path is the path of a program without which the test is skipped.
func Path(t testing.TB, name string) string {
	t.Helper()
	path, err := Find(name)
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	return path
}

// root is the repository that a test runs in: go test starts it in its package's
// directory.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("the working directory is in no Go module")
		}
		dir = parent
	}
}
