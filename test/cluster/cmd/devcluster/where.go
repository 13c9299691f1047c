// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/binaries"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cluster"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// where are the flags that say which cluster is meant and where things are. Empty
// ones follow from the repository that the command is called in.
type where struct {
	name, dir, source, cache string
}

func newWhere(f *pflag.FlagSet) *where {
	w := &where{}
	f.StringVar(&w.name, "name", "kube", "name of the cluster")
	f.StringVar(&w.dir, "dir", "", "directory of all clusters (default REPOSITORY/.cluster)")
	f.StringVar(&w.source, "source", "", "module to build the binaries from (default REPOSITORY/test/cluster)")
	f.StringVar(&w.cache, "cache", os.Getenv("DEVCLUSTER_CACHE"), "where built binaries are kept (default $DEVCLUSTER_CACHE or REPOSITORY/.work/cluster-bin)")
	return w
}

const module = "test/cluster"

// repository is the first directory upwards that holds the module, or else the
// current directory.
func repository() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the current directory: %w", err)
	}
	for d := wd; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, module, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return wd, nil
		}
	}
}

// path makes a flag's value absolute, or takes elem below the repository.
func path(flag string, elem ...string) (string, error) {
	if flag != "" {
		p, err := filepath.Abs(flag)
		if err != nil {
			return "", fmt.Errorf("resolve %s: %w", flag, err)
		}
		return p, nil
	}
	r, err := repository()
	if err != nil {
		return "", err
	}
	return filepath.Join(append([]string{r}, elem...)...), nil
}

// cluster is the directory of the cluster that is meant.
func (w *where) cluster() (string, error) { return w.below(w.name) }

func (w *where) below(name string) (string, error) {
	d, err := path(w.dir, ".cluster")
	if err != nil {
		return "", err
	}
	return filepath.Join(d, name), nil
}

// running is the cluster that is meant, which must be running.
func (w *where) running() (spec.Cluster, error) {
	d, err := w.cluster()
	if err != nil {
		return spec.Cluster{}, err
	}
	if !cluster.Running(d) {
		return spec.Cluster{}, fmt.Errorf("cluster %s in %s: %w", w.name, filepath.Dir(d), cluster.ErrNotRunning)
	}
	return spec.Load(d) //nolint:wrapcheck // says all there is to say
}

// built builds the binaries, if that has not been done, and returns where they are.
func (w *where) built(ctx context.Context) (string, error) { return w.builtBy(ctx, binaries.Build) }

func (w *where) builtBy(ctx context.Context, build func(context.Context, binaries.Options) (string, error)) (string, error) {
	source, err := path(w.source, module)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(source, "go.mod")); err != nil {
		return "", errors.New("not in the repository: say with --source where test/cluster is")
	}
	cache, err := path(w.cache, ".work", "cluster-bin")
	if err != nil {
		return "", err
	}
	return build(ctx, binaries.Options{Source: source, Cache: cache, Progress: os.Stderr}) //nolint:wrapcheck // says all
}

func binariesCommand(w *where) *cobra.Command {
	suite := false
	c := &cobra.Command{
		Use:   "binaries",
		Short: "build the cluster's programs, if they are not built, and print where they are",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			build := binaries.Build
			if suite {
				build = binaries.Suite
			}
			dir, err := w.builtBy(c.Context(), build)
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), dir)
			}
			return err
		},
	}
	c.Flags().BoolVar(&suite, "suite", false, "those of Kubernetes' own test suite instead")
	return c
}

func assetsCommand(w *where) *cobra.Command {
	return &cobra.Command{
		Use:   "assets",
		Short: "print the directory to set KUBEBUILDER_ASSETS to, after building if necessary",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := w.built(c.Context())
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), binaries.Assets(dir))
			}
			return err
		},
	}
}
