// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command generate copies Istio's CRDs out of the Go module cache, where the
// module istio.io/api holds them, into a file that package crds embeds. It is run
// by "go generate ./internal/operator/crds/..."; the file is not kept in git.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	// Not "go list": on a new machine nothing has put the module into the cache yet.
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	if err != nil {
		return fmt.Errorf("fetch module %s: %w: %s", module, err, out)
	}
	var at struct{ Version, Dir string }
	if err := json.Unmarshal(out, &at); err != nil {
		return fmt.Errorf("fetch module %s: %w", module, err)
	}
	text, err := os.ReadFile(filepath.Join(at.Dir, source))
	if err != nil {
		return err
	}
	if !bytes.Contains(text, []byte("kind: CustomResourceDefinition")) {
		return errors.New(source + " holds no CRD")
	}
	text = append([]byte("# "+module+" "+at.Version+"\n"), text...)
	if old, err := os.ReadFile(target); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return os.WriteFile(target, text, 0o644)
}
