// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command generate copies Istio's CRDs out of the Go module cache, where the
// module istio.io/api holds them, into a file that package crds embeds. It is run
// by "go generate ./internal/operator/crds/..."; the file is not kept in git.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	module = "istio.io/api"
	source = "kubernetes/customresourcedefinitions.gen.yaml"
	target = "zz_istio.yaml"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "generate Istio's CRDs:", err)
		os.Exit(1)
	}
}

func run() error {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}} {{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("find module %s: %w", module, err)
	}
	version, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if dir == "" {
		return fmt.Errorf("module %s is not in the module cache: run go mod download", module)
	}
	text, err := os.ReadFile(filepath.Join(dir, source))
	if err != nil {
		return err
	}
	if !bytes.Contains(text, []byte("kind: CustomResourceDefinition")) {
		return errors.New(source + " holds no CRD")
	}
	text = append([]byte("# "+module+" "+version+"\n"), text...)
	if old, err := os.ReadFile(target); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return os.WriteFile(target, text, 0o644)
}
