// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// Virtual hosts that come on their own belong to a route table, and Envoy treats
// them by its rules, not by those of a type that is asked for by name:
//
//   - It asks once for all, with no names, after the first table that says so.
//     From then on whoever asks for a table gets its hosts too.
//   - It keeps a host only if it has the table, and acknowledges it anyhow. So
//     whenever a client gets a table that it did not have, its hosts go after it,
//     whatever the client was sent before.
//   - A new table holds up its listener until something is said of its hosts. One
//     without any is answered by the removal of a host that never was.
//   - After a reconnect it names what it has, also of tables that it has no more.
//
// The rules were found by trying, see docs/decisions/0012.

// nobody is the name of a host that no table has.
const nobody = "none"

// tables are those whose virtual hosts the client should have.
type tables struct {
	// accepted tells by name whether the client has the table for sure.
	accepted map[string]bool
	// unanswered are those of whose hosts nothing was said yet; true for one of
	// which the client cannot have any.
	unanswered map[string]bool
}

func (t *tables) has(host string) bool {
	table, _, _ := strings.Cut(host, "/")
	_, ok := t.accepted[table]
	return ok
}

// claim notes a table that the client brings along from a former stream.
func (t *tables) claim(name string) { t.put(name, true, false) }

// sent notes that the table goes to the client, and tells whether it may be new
// to it.
func (t *tables) sent(name string) bool {
	if t.accepted[name] {
		return false
	}
	t.put(name, false, true)
	return true
}

func (t *tables) put(name string, accepted, anew bool) {
	if t.accepted == nil {
		t.accepted = map[string]bool{}
	}
	if t.unanswered == nil {
		t.unanswered = map[string]bool{}
	}
	t.accepted[name] = accepted
	t.unanswered[name] = anew
}

// took notes that the client has accepted the table.
func (t *tables) took(name string) {
	if _, ok := t.accepted[name]; ok {
		t.accepted[name] = true
	}
}

// forget notes that the client does not have the table, or not for long.
func (t *tables) forget(name string) {
	delete(t.accepted, name)
	delete(t.unanswered, name)
}

// askHosts takes a request for virtual hosts. What it names is what the client
// has: it asks for no host by name.
func (s *stream) askHosts(w *watch, r request) {
	if w.active {
		return
	}
	w.open()
	if len(r.subscribe)+len(r.versions) == 0 {
		return
	}
	w.have = make(map[string]uint64, len(r.versions))
	for _, name := range r.subscribe {
		if name != wildcard {
			w.have[name] = 0
		}
	}
	for name, version := range r.versions {
		w.have[name] = parseVersion(version)
	}
}

// askTable notes that a client asks for a table, in the first request with what it
// has: it may have thrown away what it was sent before.
func (s *stream) askTable(w *watch, name string) {
	hosts := &s.watches[resource.VirtualHost]
	hosts.tables.forget(name)
	table := s.state.Sets[resource.Route].Get(name)
	if _, had := w.have[name]; had && table != nil && table.HostsApart {
		hosts.tables.claim(name)
	}
}

// followTables notes tables that were sent.
func (s *stream) followTables(sent []*resource.Resource) {
	w := &s.watches[resource.VirtualHost]
	for _, r := range sent {
		if r.HostsApart && w.tables.sent(r.Name) {
			w.acked, w.settled = Mark{}, 0 // It is not done without its hosts.
		}
	}
}

// pumpHosts sends virtual hosts, behind the tables that they belong to. A client
// that comes back may name the hosts first; what of it still counts is known when
// it has asked for tables.
func (s *stream) pumpHosts(w *watch, set *resource.Set) batch {
	if !s.watches[resource.Route].active {
		return batch{}
	}
	for table, anew := range w.tables.unanswered {
		if anew {
			for _, r := range set.Below(table) {
				w.due[r.Name] = resent
			}
		}
		if anew || !claims(w.have, table) {
			w.due[table+"/"+nobody] = resent
		}
	}
	clear(w.tables.unanswered)
	return s.next(w, set)
}

// claims tells whether the client brings along hosts of the table.
func claims(have map[string]uint64, table string) bool {
	for name := range have {
		if strings.HasPrefix(name, table+"/") {
			return true
		}
	}
	return false
}
