// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/internal/version"
)

// VersionOptions is `isthmusctl version`.
type VersionOptions struct {
	streams Streams
	// Output is "" for a line or "json".
	Output string
}

func versionCommand(t Tool) *cobra.Command {
	o := &VersionOptions{streams: t.Streams}
	c := &cobra.Command{Use: "version", Short: "say which version this is", Args: cobra.NoArgs, RunE: run(o)}
	c.Flags().StringVarP(&o.Output, "output", "o", "", "json for programs")
	return c
}

// Complete has nothing to fill in.
func (o *VersionOptions) Complete(context.Context, []string) error { return nil }

// Validate refuses formats that there are not.
func (o *VersionOptions) Validate() error {
	if o.Output != "" && o.Output != "json" {
		return errors.New("--output: must be json or left out")
	}
	return nil
}

// Run prints the build.
func (o *VersionOptions) Run(context.Context) error {
	if o.Output == "json" {
		return json.NewEncoder(o.streams.Out).Encode(version.Build())
	}
	_, err := fmt.Fprintln(o.streams.Out, version.Build())
	return err
}
