// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package sharedlib finds the shared libraries that a program needs on this
// machine, so that it can run in an image that holds nothing else.
package sharedlib

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Library is a file that a program loads: where it is, and where the program
// will look for it.
type Library struct {
	Source string
	Path   string
}

// Of returns the dynamic loader and all libraries, direct or not, of the program.
// A static program has none.
func Of(program string) ([]Library, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("read program %s: %w", program, err)
	}
	defer f.Close()
	loader, err := interpreter(f)
	if err != nil || loader == "" {
		return nil, err
	}
	w := walk{seen: map[string]bool{}, machine: f.Machine}
	w.found = append(w.found, Library{Source: loader, Path: loader})
	w.seen[filepath.Base(loader)] = true
	if err := w.needs(f, program); err != nil {
		return nil, err
	}
	return w.found, nil
}

// interpreter is the path of the dynamic loader that the program names.
func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return "", fmt.Errorf("read the loader's path: %w", err)
		}
		return strings.TrimRight(string(b), "\x00"), nil
	}
	return "", nil
}

type walk struct {
	seen    map[string]bool
	machine elf.Machine
	found   []Library
}

func (w *walk) needs(f *elf.File, path string) error {
	names, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("list libraries of %s: %w", path, err)
	}
	extra, err := runpath(f, path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if w.seen[name] {
			continue
		}
		w.seen[name] = true
		lib, err := w.find(name, extra)
		if err != nil {
			return fmt.Errorf("find library %s of %s: %w", name, path, err)
		}
		w.found = append(w.found, Library{Source: lib, Path: lib})
		l, err := elf.Open(lib)
		if err != nil {
			return fmt.Errorf("read library %s: %w", lib, err)
		}
		err = w.needs(l, lib)
		l.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// runpath are the directories that the file itself names.
func runpath(f *elf.File, path string) ([]string, error) {
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		values, err := f.DynString(tag)
		if err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", tag, path, err)
		}
		for _, v := range values {
			for d := range strings.SplitSeq(v, ":") {
				dirs = append(dirs, strings.ReplaceAll(d, "$ORIGIN", filepath.Dir(path)))
			}
		}
	}
	return dirs, nil
}

// find looks where the loader of a Debian system looks without its cache, which an
// image does not have either.
func (w *walk) find(name string, extra []string) (string, error) {
	for _, d := range append(extra, defaults(w.machine)...) {
		p := filepath.Join(d, name)
		l, err := elf.Open(p)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read library %s: %w", p, err)
		}
		fits := l.Machine == w.machine
		l.Close()
		if fits {
			return p, nil
		}
	}
	return "", errors.New("it is in none of the loader's directories")
}

func defaults(m elf.Machine) []string {
	triplet := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}[m]
	return []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
}
