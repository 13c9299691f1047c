// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a directory must be quiet before its files are read: a
// writer takes several system calls for one file, and a file system has no
// transactions. It's not a debounce of changes, which come at once from there on.
const settle = 10 * time.Millisecond

// Dir is a Source of YAML files, of a directory and those below it. A file
// replaced by rename, or a whole tree by a swapped symbolic link as kubelet does
// for mounted ConfigMaps, is one change. When a file is broken, what it said
// last stays.
type Dir struct {
	Path      string
	Converter Converter
	Log       *slog.Logger

	queue  *Queue
	synced func()
}

// Attach implements Source.
func (d *Dir) Attach(q *Queue) {
	d.queue, d.synced = q, q.Expect("configuration directory "+d.Path)
}

// Run reads the directory and follows it.
func (d *Dir) Run(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", d.Path, err)
	}
	defer func() { _ = w.Close() }()
	t := newTree(d.Path, d.Converter, d.queue)
	if err := t.scan(w.Add); err != nil {
		return fmt.Errorf("read %s: %w", d.Path, err)
	}
	d.synced()
	quiet := time.NewTimer(settle)
	quiet.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events:
			quiet.Reset(settle)
		case err := <-w.Errors:
			// Events may have been lost; a scan finds what they told.
			d.Log.Warn("watching the configuration directory", "path", d.Path, "error", err)
			quiet.Reset(settle)
		case <-quiet.C:
			if err := t.scan(w.Add); err != nil {
				d.queue.Report(d.Path, err.Error())
			} else {
				d.queue.Report(d.Path, "")
			}
		}
	}
}

// tree is what is known of the files of a directory.
type tree struct {
	root      string
	kinds     []*kind
	converter Converter
	queue     *Queue
	files     map[string]*file
	// owners lists the files that have an object; the first has the say.
	owners map[ID][]string
}

type file struct {
	stamp   os.FileInfo
	objects map[ID]Object
}

func newTree(root string, c Converter, q *Queue) *tree {
	return &tree{
		root: root, kinds: kinds(), converter: c, queue: q,
		files: map[string]*file{}, owners: map[ID][]string{},
	}
}

// scan reads the files that changed and delivers their objects as one change.
// It calls watch for every directory.
func (t *tree) scan(watch func(string) error) error {
	found, err := t.list(watch)
	if err != nil {
		return err
	}
	changed := map[ID]struct{}{}
	for path, info := range found {
		if old := t.files[path]; old == nil || !sameStamp(old.stamp, info) {
			t.read(path, info, changed)
		}
	}
	for path, f := range t.files {
		if _, ok := found[path]; !ok {
			t.replace(path, f.objects, nil, changed)
			delete(t.files, path)
			t.queue.Report(path, "")
		}
	}
	t.deliver(changed)
	return nil
}

// list finds the files, following links of files but not of directories, which
// could go round in circles. Names that begin with a dot are others' affairs:
// editors' files, and the hidden directories of mounted ConfigMaps.
func (t *tree) list(watch func(string) error) (map[string]os.FileInfo, error) {
	out := map[string]os.FileInfo{}
	err := filepath.WalkDir(t.root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil && path != t.root:
			return nil // gone meanwhile
		case err != nil:
			return err
		case strings.HasPrefix(e.Name(), ".") && path != t.root:
			if e.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case e.IsDir():
			return watch(path)
		}
		if ext := filepath.Ext(path); ext != ".yaml" && ext != ".yml" && ext != ".json" {
			return nil
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			out[path] = info
		}
		return nil
	})
	return out, err
}

func sameStamp(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func (t *tree) read(path string, info os.FileInfo, changed map[ID]struct{}) {
	f := t.files[path]
	if f == nil {
		f = &file{}
		t.files[path] = f
	}
	f.stamp = info
	content, err := os.ReadFile(path)
	if err != nil {
		t.queue.Report(path, err.Error())
		return
	}
	p, err := parseFile(t.kinds, t.converter, content)
	if err != nil {
		t.queue.Report(path, err.Error())
		return
	}
	t.queue.Report(path, "")
	t.replace(path, f.objects, p.objects, changed)
	f.objects = p.objects
}

// replace notes which objects a file has now instead of before.
func (t *tree) replace(path string, before, now map[ID]Object, changed map[ID]struct{}) {
	for id := range before {
		changed[id] = struct{}{}
		if _, stays := now[id]; !stays {
			t.owners[id] = slices.DeleteFunc(t.owners[id], func(p string) bool { return p == path })
		}
	}
	for id := range now {
		changed[id] = struct{}{}
		if !slices.Contains(t.owners[id], path) {
			t.owners[id] = append(t.owners[id], path)
			slices.Sort(t.owners[id])
		}
	}
}

func (t *tree) deliver(changed map[ID]struct{}) {
	batch := make(map[ID]Object, len(changed))
	for id := range changed {
		owners := t.owners[id]
		if len(owners) == 0 {
			delete(t.owners, id)
			batch[id] = Object{}
			t.queue.Report(id.String(), "")
			continue
		}
		batch[id] = t.files[owners[0]].objects[id]
		twice := ""
		if len(owners) > 1 {
			twice = fmt.Sprintf("is in several files, the first counts: %s", strings.Join(owners, ", "))
		}
		t.queue.Report(id.String(), twice)
	}
	t.queue.Set(batch)
}
