// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package dockerfile makes an image from a Dockerfile's final stage without
// running anything: what earlier stages would have built is taken from a
// directory of programs, and of the base images only the few files are made that
// programs cannot do without.
//
// Whatever it cannot honour is an error that names the line, never ignored.
package dockerfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/image"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/sharedlib"
)

// Options say what to make of a Dockerfile.
type Options struct {
	Target  string // name of the final stage
	Context string // directory that COPY without --from copies from
	Bin     string // directory in which a file of another stage is found by its last name
}

// Image returns the image of the target stage, without a tag.
func Image(text io.Reader, o Options) (image.Image, error) {
	s, err := stage(text, o.Target)
	if err != nil {
		return image.Image{}, err
	}
	b := &build{Options: o, base: s.BaseName}
	if err := b.from(s); err != nil {
		return image.Image{}, err
	}
	for _, c := range s.Commands {
		if err := b.expandAndDo(c); err != nil {
			return image.Image{}, fmt.Errorf("line %d: %s: %w", line(c.Location()), strings.ToUpper(c.Name()), err)
		}
	}
	return b.image, nil
}

func stage(text io.Reader, target string) (*instructions.Stage, error) {
	parsed, err := parser.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse Dockerfile: %w", err)
	}
	stages, _, err := instructions.Parse(parsed.AST, linter.New(&linter.Config{SkipAll: true}))
	if err != nil {
		return nil, fmt.Errorf("parse Dockerfile: %w", err)
	}
	var names []string
	for i := range stages {
		if stages[i].Name == target {
			return &stages[i], nil
		}
		names = append(names, stages[i].Name)
	}
	return nil, fmt.Errorf("no stage %q among %s", target, strings.Join(names, ", "))
}

func line(r []parser.Range) int {
	if len(r) == 0 {
		return 0
	}
	return r[0].Start.Line
}

// build is an image in the making.
type build struct {
	Options
	base  string
	image image.Image
}

// nonroot is the user of that name in distroless images.
const nonroot = "65532"

func (b *build) from(s *instructions.Stage) error {
	if strings.Contains(s.BaseName, "$") {
		return fmt.Errorf("line %d: FROM %s: build arguments are not supported", line(s.Location), s.BaseName)
	}
	if b.base == "scratch" {
		return nil
	}
	b.image.Files = append(b.image.Files,
		image.File{Path: "etc/passwd", Mode: 0o644, Content: "root:x:0:0:root:/root:/sbin/nologin\n" +
			"nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"},
		image.File{Path: "etc/group", Mode: 0o644, Content: "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n"},
		image.File{Path: "etc/nsswitch.conf", Mode: 0o644, Content: "hosts: files dns\n"},
	)
	if strings.HasSuffix(b.base, "nonroot") {
		b.image.Config.User = nonroot
	}
	return nil
}

// expandAndDo resolves quotes and variables first. Only ENV gives variables values
// here; one without is an error rather than an empty word.
func (b *build) expandAndDo(c instructions.Command) error {
	if e, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		err := e.Expand(func(word string) (string, error) {
			out, unknown, err := shell.NewLex('\\').ProcessWord(word, shell.EnvsFromSlice(b.image.Config.Env))
			if err == nil && len(unknown) > 0 {
				err = fmt.Errorf("%s: variables without an ENV of this stage are not supported", word)
			}
			return out, err
		})
		if err != nil {
			return err //nolint:wrapcheck // says all
		}
	}
	return b.command(c)
}

func (b *build) command(c instructions.Command) error {
	cfg := &b.image.Config
	switch c := c.(type) {
	case *instructions.CopyCommand:
		return b.copy(c)
	case *instructions.UserCommand:
		cfg.User = c.User
	case *instructions.WorkdirCommand:
		cfg.WorkingDir = path.Join("/", cfg.WorkingDir, c.Path)
		if path.IsAbs(c.Path) {
			cfg.WorkingDir = c.Path
		}
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			cfg.Env = append(cfg.Env, kv.String())
		}
	case *instructions.LabelCommand:
		if cfg.Labels == nil {
			cfg.Labels = map[string]string{}
		}
		for _, kv := range c.Labels {
			cfg.Labels[kv.Key] = kv.Value
		}
	case *instructions.ExposeCommand:
		if cfg.ExposedPorts == nil {
			cfg.ExposedPorts = map[string]struct{}{}
		}
		for _, p := range c.Ports {
			cfg.ExposedPorts[p] = struct{}{}
		}
	case *instructions.EntrypointCommand:
		cfg.Entrypoint = c.CmdLine
		return needsNoShell(c.ShellDependantCmdLine)
	case *instructions.CmdCommand:
		cfg.Cmd = c.CmdLine
		return needsNoShell(c.ShellDependantCmdLine)
	default:
		return errors.New("not supported: nothing is run, so only COPY, USER, WORKDIR, ENV, LABEL, EXPOSE, ENTRYPOINT and CMD are")
	}
	return nil
}

func needsNoShell(c instructions.ShellDependantCmdLine) error {
	if c.PrependShell {
		return errors.New(`not supported without brackets: write ["program", "argument"]`)
	}
	return nil
}

func (b *build) copy(c *instructions.CopyCommand) error {
	if len(c.SourceContents) > 0 || c.Chown != "" || c.Parents || len(c.ExcludePatterns) > 0 {
		return errors.New("here-documents, --chown, --parents and --exclude are not supported")
	}
	mode, err := parseMode(c.Chmod)
	if err != nil {
		return err
	}
	for _, s := range c.SourcePaths {
		if err := b.copyOne(c, s, mode); err != nil {
			return err
		}
	}
	return nil
}

func parseMode(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	m, err := strconv.ParseInt(s, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("--chmod %s: only octal modes are supported", s)
	}
	return m, nil
}

func (b *build) copyOne(c *instructions.CopyCommand, from string, mode int64) error {
	source := filepath.Join(b.Context, from)
	if c.From != "" {
		source = filepath.Join(b.Bin, path.Base(from))
	}
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("%s is taken from %s: %w", from, source, err)
	}
	to := path.Join("/", b.image.Config.WorkingDir, c.DestPath)
	if path.IsAbs(c.DestPath) {
		to = path.Clean(c.DestPath)
	}
	if info.IsDir() {
		return b.copyDir(source, to, mode)
	}
	if strings.HasSuffix(c.DestPath, "/") || c.DestPath == "." {
		to = path.Join(to, path.Base(from))
	}
	return b.add(source, to, pick(mode, info))
}

func (b *build) copyDir(source, to string, mode int64) error {
	err := filepath.WalkDir(source, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(source, p)
		if err != nil {
			return fmt.Errorf("resolve: %w", err)
		}
		info, err := os.Stat(p)
		if err != nil {
			return fmt.Errorf("look at file: %w", err)
		}
		return b.add(p, path.Join(to, filepath.ToSlash(rel)), pick(mode, info))
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", source, err)
	}
	return nil
}

func pick(mode int64, info os.FileInfo) int64 {
	if mode != 0 {
		return mode
	}
	return int64(info.Mode().Perm())
}

// add adds a file and, if it is a program that loads libraries, these too, as the
// base image would have them.
func (b *build) add(source, to string, mode int64) error {
	b.image.Files = append(b.image.Files, image.File{Path: to, Source: source, Mode: mode})
	if !isELF(source) {
		return nil
	}
	libs, err := sharedlib.Of(source)
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", to, err)
	}
	if len(libs) > 0 && !b.hasGlibc() {
		return fmt.Errorf("%s loads %d libraries, of which base image %s has none", to, len(libs), b.base)
	}
	for _, l := range libs {
		b.image.Files = append(b.image.Files, image.File{Path: l.Path, Source: l.Source})
	}
	return nil
}

// hasGlibc knows distroless's static image and scratch as the bases without.
func (b *build) hasGlibc() bool {
	return b.base != "scratch" && !strings.HasPrefix(path.Base(b.base), "static")
}

func isELF(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == "\x7fELF"
}
