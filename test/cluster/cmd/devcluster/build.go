// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/dockerfile"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/image"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/sharedlib"
)

// buildFlags are of two kinds of image: a stage of a Dockerfile, or programs of
// this machine.
type buildFlags struct {
	file, target, context, bin string

	binaries   []string
	withLibs   bool
	user       string
	entrypoint []string
	env        []string

	tag, out string
}

func buildCommand() *cobra.Command {
	var b buildFlags
	c := &cobra.Command{
		Use:   "build --tag TAG -o ARCHIVE {--target STAGE | --binary FILE[=PATH]…}",
		Short: "make an image archive from a Dockerfile's stage or from programs of this machine",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			i, err := b.image()
			if err != nil {
				return err
			}
			i.Tags = []string{b.tag}
			return image.Write(b.out, i) //nolint:wrapcheck // says all
		},
	}
	f := c.Flags()
	f.StringVarP(&b.tag, "tag", "t", "", "name and tag of the image")
	f.StringVarP(&b.out, "output", "o", "", "archive to write")
	f.StringVarP(&b.file, "file", "f", "", "Dockerfile (default CONTEXT/Dockerfile)")
	f.StringVar(&b.target, "target", "", "stage of the Dockerfile")
	f.StringVar(&b.context, "context", ".", "directory that the Dockerfile's COPY copies from")
	f.StringVar(&b.bin, "bin", "", "directory of what other stages would build (default CONTEXT/bin)")
	f.StringArrayVar(&b.binaries, "binary", nil, "program to put into the image, at its own path or PATH; the first is run")
	f.BoolVar(&b.withLibs, "with-libs", false, "with --binary: add the libraries that the programs load")
	f.StringVar(&b.user, "user", "", "with --binary: user to run as")
	f.StringArrayVar(&b.entrypoint, "entrypoint", nil, "with --binary: command to run, one flag per word")
	f.StringArrayVar(&b.env, "env", nil, "with --binary: KEY=VALUE")
	for _, n := range []string{"tag", "output"} {
		_ = c.MarkFlagRequired(n) // fails for unknown flags only
	}
	c.MarkFlagsOneRequired("target", "binary")
	c.MarkFlagsMutuallyExclusive("target", "binary")
	return c
}

func (b *buildFlags) image() (image.Image, error) {
	if b.target == "" {
		return b.programs()
	}
	if b.file == "" {
		b.file = filepath.Join(b.context, "Dockerfile")
	}
	if b.bin == "" {
		b.bin = filepath.Join(b.context, "bin")
	}
	f, err := os.Open(b.file)
	if err != nil {
		return image.Image{}, fmt.Errorf("open Dockerfile: %w", err)
	}
	defer f.Close()
	i, err := dockerfile.Image(f, dockerfile.Options{Target: b.target, Context: b.context, Bin: b.bin})
	if err != nil {
		return image.Image{}, fmt.Errorf("%s: %w", b.file, err)
	}
	return i, nil
}

func (b *buildFlags) programs() (image.Image, error) {
	var i image.Image
	for _, spec := range b.binaries {
		source, dest, ok := strings.Cut(spec, "=")
		if !ok {
			dest = source
		}
		if !filepath.IsAbs(dest) {
			return i, fmt.Errorf("--binary %s: want an absolute path in the image", spec)
		}
		i.Files = append(i.Files, image.File{Path: dest, Source: source})
		if len(b.entrypoint) == 0 {
			b.entrypoint = []string{dest}
		}
		libs, err := sharedlib.Of(source)
		if err != nil {
			return i, err //nolint:wrapcheck // says all
		}
		if len(libs) > 0 && !b.withLibs {
			return i, errors.New(source + " loads libraries: say --with-libs")
		}
		for _, l := range libs {
			i.Files = append(i.Files, image.File{Path: l.Path, Source: l.Source})
		}
	}
	i.Config.Entrypoint, i.Config.User, i.Config.Env = b.entrypoint, b.user, b.env
	return i, nil
}
