// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"encoding/binary"
	"strings"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// sep ends an index key inside a tree, so that one key is never the prefix of another.
const sep = "\x00"

// schema says how the objects of one table are keyed, ordered and found.
type schema[T any] struct {
	table Table
	// key of an object; the same for all versions of it.
	key func(T) string
	// order sorts the objects within an index key; nil means by key.
	order func(T) string
	// natural are indexes that the rows are by themselves, being in the order of
	// keys that begin with the namespace: All and ByNamespace.
	natural []Index
	// equal tells that a new version says nothing new.
	equal func(a, b T) bool
	// indexes besides ByKey.
	indexes []indexer[T]
}

type indexer[T any] struct {
	index Index
	keys  func(T) []string
}

// table is one immutable version of a table: the objects by key, and a tree per
// further index with keys indexKey, sep, order.
type table[T any] struct {
	*schema[T]
	rows *iradix.Tree[T]
	by   []*iradix.Tree[T]
}

func newTable[T any](s *schema[T]) table[T] {
	t := table[T]{schema: s, rows: iradix.New[T]()}
	for range s.indexes {
		t.by = append(t.by, iradix.New[T]())
	}
	return t
}

func (t *table[T]) get(key string) (T, bool) { return t.rows.Get([]byte(key)) }

// list returns the objects with this key in an index, in the table's order.
func (t *table[T]) list(i Index, key string) []T {
	for n := range t.indexes {
		if t.indexes[n].index == i {
			return collect(t.by[n].Root(), key+sep)
		}
	}
	return byPrefix(t.rows.Root(), i, key)
}

// byPrefix answers for the indexes that rows in the order of their keys are.
func byPrefix[T any](rows *iradix.Node[T], i Index, key string) []T {
	switch i {
	case All:
		return collect(rows, "")
	case ByNamespace:
		return collect(rows, key+"/")
	}
	return nil
}

// has tells whether an index finds anything by this key.
func (t *table[T]) has(i Index, key string) bool {
	for n := range t.indexes {
		if t.indexes[n].index == i {
			return holds(t.by[n].Root(), key+sep)
		}
	}
	return len(byPrefix(t.rows.Root(), i, key)) > 0
}

func holds[T any](root *iradix.Node[T], prefix string) bool {
	it := root.Iterator()
	it.SeekPrefix([]byte(prefix))
	_, _, ok := it.Next()
	return ok
}

func collect[T any](root *iradix.Node[T], prefix string) []T {
	var out []T
	it := root.Iterator()
	it.SeekPrefix([]byte(prefix))
	for _, v, ok := it.Next(); ok; _, v, ok = it.Next() {
		out = append(out, v)
	}
	return out
}

// tableTxn changes a table and notes which reads that touches.
type tableTxn[T any] struct {
	*schema[T]
	rows    *iradix.Txn[T]
	by      []*iradix.Txn[T]
	changes Changes
}

func (t *table[T]) txn(c Changes) *tableTxn[T] {
	x := &tableTxn[T]{schema: t.schema, rows: t.rows.Txn(), changes: c}
	for _, tree := range t.by {
		x.by = append(x.by, tree.Txn())
	}
	return x
}

func (x *tableTxn[T]) commit() table[T] {
	t := table[T]{schema: x.schema, rows: x.rows.CommitOnly()}
	for _, txn := range x.by {
		t.by = append(t.by, txn.CommitOnly())
	}
	return t
}

func (x *tableTxn[T]) get(key string) (T, bool) { return x.rows.Get([]byte(key)) }

func (x *tableTxn[T]) list(i Index, key string) []T {
	for n := range x.indexes {
		if x.indexes[n].index == i {
			return collect(x.by[n].Root(), key+sep)
		}
	}
	return byPrefix(x.rows.Root(), i, key)
}

// put stores v unless it says nothing new. It returns the version before, if
// there was one, and whether anything changed.
func (x *tableTxn[T]) put(v T) (old T, changed bool) {
	key := x.key(v)
	old, had := x.get(key)
	if had && x.equal(old, v) {
		return old, false
	}
	if had {
		x.unindex(old)
	}
	x.rows.Insert([]byte(key), v)
	for n, ix := range x.indexes {
		for _, k := range ix.keys(v) {
			x.by[n].Insert([]byte(k+sep+x.orderOf(v)), v)
		}
	}
	x.touch(v)
	return old, true
}

// touch notes that every read that finds v may have another result.
func (x *tableTxn[T]) touch(v T) {
	key := x.key(v)
	x.changes.add(x.table, ByKey, key)
	for _, ix := range x.indexes {
		for _, k := range ix.keys(v) {
			x.changes.add(x.table, ix.index, k)
		}
	}
	for _, i := range x.natural {
		ns := ""
		if i == ByNamespace {
			ns, _, _ = strings.Cut(key, "/")
		}
		x.changes.add(x.table, i, ns)
	}
}

// remove forgets the object with this key and returns it, if there was one.
func (x *tableTxn[T]) remove(key string) (old T, changed bool) {
	old, changed = x.rows.Delete([]byte(key))
	if changed {
		x.unindex(old)
	}
	return old, changed
}

func (x *tableTxn[T]) unindex(old T) {
	for n, ix := range x.indexes {
		for _, k := range ix.keys(old) {
			x.by[n].Delete([]byte(k + sep + x.orderOf(old)))
		}
	}
	x.touch(old)
}

func (x *tableTxn[T]) orderOf(v T) string {
	if x.order == nil {
		return x.key(v)
	}
	return x.order(v)
}

// age renders a time so that strings sort as times do; no time at all is oldest.
func age(t time.Time) string {
	var b [8]byte
	if !t.IsZero() {
		binary.BigEndian.PutUint64(b[:], uint64(t.UnixNano())^(1<<63))
	}
	return string(b[:])
}
