// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package files tells when mounted files change. The kubelet replaces a volume's
// content by swapping a symbolic link beside the file, so directories are watched
// and content is compared, not names of events.
package files

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
)

// Watch calls changed with the contents (nil for a file that is not there), once
// at the start and then whenever one of them differs from the last call, until
// ctx ends. The directories must exist.
func Watch(ctx context.Context, paths []string, changed func(contents [][]byte)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer func() { _ = w.Close() }()
	for _, p := range paths {
		if err := w.Add(filepath.Dir(p)); err != nil {
			return fmt.Errorf("watch directory of %s: %w", p, err)
		}
	}
	last := read(paths)
	changed(last)
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return nil
			}
		case err, ok := <-w.Errors:
			// An overflow loses events, not the files: compare as after any event.
			if !ok || err == nil {
				return nil
			}
		}
		if now := read(paths); !slices.EqualFunc(last, now, bytes.Equal) {
			last = now
			changed(now)
		}
	}
}

func read(paths []string) [][]byte {
	out := make([][]byte, len(paths))
	for i, p := range paths {
		if b, err := os.ReadFile(p); err == nil {
			out[i] = b
		}
	}
	return out
}
