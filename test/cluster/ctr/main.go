// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command ctr is containerd's own client, which imports images.
package main

import (
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/cmd/ctr/app"
)

func main() {
	if err := app.New().Run(os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "ctr: %s\n", err)
		os.Exit(1)
	}
}
