// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"slices"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// Row is one row of the snapshot. Key is the same for all rows that would take
// each other's place.
type Row struct {
	Key    string
	Put    func(*snapshot.Txn)
	Remove func(*snapshot.Txn)
}

// rowSet knows which object claims which row, so that a row goes when nobody
// claims it any more, and the oldest object has it when several do (the same
// host in two ServiceEntries of a namespace).
type rowSet struct {
	objects map[ID][]string
	claims  map[string][]claim
}

type claim struct {
	id ID
	Object
	row Row
}

func newRowSet() *rowSet {
	return &rowSet{objects: map[ID][]string{}, claims: map[string][]claim{}}
}

func (s *rowSet) apply(x *snapshot.Txn, batch map[ID]Object) {
	dirty := map[string]Row{}
	for id, o := range batch {
		for _, key := range s.objects[id] {
			s.release(key, id, dirty)
		}
		delete(s.objects, id)
		for _, row := range o.Rows {
			s.objects[id] = append(s.objects[id], row.Key)
			s.claim(claim{id: id, Object: Object{Created: o.Created}, row: row}, dirty)
		}
	}
	for key, last := range dirty {
		if claims := s.claims[key]; len(claims) > 0 {
			claims[0].row.Put(x)
		} else {
			last.Remove(x)
		}
	}
}

func (s *rowSet) claim(c claim, dirty map[string]Row) {
	key := c.row.Key
	claims := append(s.claims[key], c)
	if len(claims) > 1 {
		slices.SortFunc(claims, func(a, b claim) int {
			return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.id.String(), b.id.String()))
		})
	}
	s.claims[key] = claims
	dirty[key] = c.row
}

func (s *rowSet) release(key string, id ID, dirty map[string]Row) {
	claims := s.claims[key]
	i := slices.IndexFunc(claims, func(c claim) bool { return c.id == id })
	if i < 0 {
		return
	}
	dirty[key] = claims[i].row
	if claims = slices.Delete(claims, i, i+1); len(claims) == 0 {
		delete(s.claims, key)
		return
	}
	s.claims[key] = claims
}
