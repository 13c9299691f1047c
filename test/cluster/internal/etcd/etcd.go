// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package etcd writes down what the API server keeps, and puts it back.
//
// Putting it back goes through etcd's own API and makes new revisions: to whoever
// watches, the cluster does not travel back in time, it changes. Copying etcd's
// files would give revisions out twice, and watchers would miss what they do not
// expect.
package etcd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Address is where etcd listens on the first node.
const Address = "http://127.0.0.1:2379"

const (
	prefix = "/registry/"
	format = "devcluster snapshot 1"
	page   = 500 // keys read at a time
	batch  = 100 // and written; etcd allows 128
)

// head is the first line of a snapshot; the others are entries.
type head struct {
	Format   string `json:"format"`
	Revision int64  `json:"revision"`
	Keys     int    `json:"keys"` // so that a file cut short is told from a whole one
}

type entry struct {
	Key    string `json:"key"`
	Value  []byte `json:"value"`
	leased bool   // expires by itself
}

// Connect returns a client of the etcd in the caller's network namespace.
func Connect() (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{Address}, DialTimeout: 10 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return c, nil
}

// Save writes everything as it is at one moment. What expires by itself, such as
// events, is left out.
func Save(ctx context.Context, c clientv3.KV, w io.Writer) error {
	entries, revision, err := all(ctx, c)
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e entry) bool { return e.leased })
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	if err := e.Encode(head{Format: format, Revision: revision, Keys: len(entries)}); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	for _, kv := range entries {
		if err := e.Encode(kv); err != nil {
			return fmt.Errorf("write snapshot: %w", err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func all(ctx context.Context, c clientv3.KV) (entries []entry, revision int64, err error) {
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		r, err := c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
		if err != nil {
			return nil, 0, fmt.Errorf("read from etcd: %w", err)
		}
		if revision == 0 {
			revision = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			entries = append(entries, entry{string(kv.Key), kv.Value, kv.Lease != 0})
		}
		if !r.More {
			return entries, revision, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// Load makes everything as the snapshot says. Nobody else may write meanwhile. A
// snapshot that is not whole changes nothing.
func Load(ctx context.Context, c clientv3.KV, r io.Reader) error {
	want, err := read(r)
	if err != nil {
		return err
	}
	have, _, err := all(ctx, c)
	if err != nil {
		return err
	}
	for ops := range slices.Chunk(changes(have, want), batch) {
		if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("write to etcd, which is now neither as it was nor as the snapshot says: %w", err)
		}
	}
	return nil
}

// read returns the whole snapshot or none of it.
func read(r io.Reader) ([]entry, error) {
	d := json.NewDecoder(bufio.NewReader(r))
	var h head
	if err := d.Decode(&h); err != nil || h.Format != format {
		return nil, errors.Join(errors.New("this is no snapshot of a devcluster"), err)
	}
	entries := make([]entry, 0, h.Keys)
	for d.More() {
		var e entry
		if err := d.Decode(&e); err != nil {
			return nil, fmt.Errorf("the snapshot is damaged: %w", err)
		}
		entries = append(entries, e)
	}
	if len(entries) != h.Keys {
		return nil, fmt.Errorf("the snapshot is damaged: it has %d keys of %d", len(entries), h.Keys)
	}
	return entries, nil
}

// changes are what leads from what there is to what is wanted. What is as
// it should be is left alone, and keeps its revision.
func changes(have, want []entry) []clientv3.Op {
	wanted := map[string][]byte{}
	for _, e := range want {
		wanted[e.Key] = e.Value
	}
	var ops []clientv3.Op
	same := map[string]bool{}
	for _, e := range have {
		v, ok := wanted[e.Key]
		if !ok {
			ops = append(ops, clientv3.OpDelete(e.Key))
		}
		same[e.Key] = ok && !e.leased && bytes.Equal(v, e.Value)
	}
	for _, e := range want {
		if !same[e.Key] {
			ops = append(ops, clientv3.OpPut(e.Key, string(e.Value)))
		}
	}
	return ops
}
