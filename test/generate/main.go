// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command generate writes every generated file of the repository anew: deepcopy
// functions, CRDs and roles. "make verify" runs it and fails on a difference.
package main

import (
	"fmt"
	"os"
	"os/exec"
)

// steps in order; each is a command line.
var steps = [][]string{
	{"go", "tool", "-modfile=tools/generate/go.mod", "controller-gen", "object:headerFile=test/generate/header.txt", "paths=./api/..."},
	{"go", "tool", "-modfile=tools/generate/go.mod", "controller-gen", "crd", "paths=./api/...", "output:crd:artifacts:config=config/crd"},
	{"go", "generate", "./charts/...", "./internal/operator/..."},
	{"go", "run", "./docs/drawing"},
}

func main() {
	for _, s := range steps {
		c := exec.Command(s[0], s[1:]...)
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "generate: %v: %v\n", s, err)
			os.Exit(1)
		}
	}
}
