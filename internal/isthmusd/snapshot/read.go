// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package snapshot keeps the world as immutable, indexed tables: one revision
// per commit, readers never lock and never see half a change.
//
//	ingest ──Txn──▶ Store ──Commit──▶ Snapshot n ──View(proxy, record)──▶ builders
//	                          └──────▶ Changes: every Read whose result may differ from n-1
//
// A View writes down each question that it answers ({table, index, key}, and
// the proxy attributes it told). What was built from a View must be built again
// when, and only when, Changes names one of its Reads: no table of kinds says
// what depends on what.
//
// Endpoints have a path of their own: rows by source (an EndpointSlice, a
// ServiceEntry) are merged per service, joined with the pods behind them, and
// summed up in a Summary; a commit that leaves the Summary equal does not list
// it as changed.
package snapshot

import (
	"maps"
	"slices"
	"strings"
)

// Table names what a Read asked of.
type Table uint8

// The tables.
const (
	Services Table = iota
	Endpoints
	Summaries
	Workloads
	Namespaces
	Secrets
	VirtualServices
	DestinationRules
	Gateways
	Sidecars
	PeerAuthentications
	Config
	Mesh
	// tables that no View reads: they only derive others, or say who is let in
	rowsTable
	nodesTable
	accountsTable
)

// Index of a table by which a Read asked.
type Index uint8

// The indexes. Not every table has each of them.
const (
	// ByKey finds the one object with a key.
	ByKey Index = iota
	// All lists the table; its only key is "".
	All
	// ByNamespace lists the objects of a namespace.
	ByNamespace
	// ByHost lists the objects that name a host, as it is written in them.
	ByHost
	// Selecting lists the services of a namespace that have a selector.
	Selecting
	// ByIP finds workloads by address.
	ByIP
	// ByPort lists services by port number.
	ByPort
	// ByAddress lists services by virtual address.
	ByAddress
	// Holders lists the namespaces that have objects, or that there are; its only key is "".
	Holders
	byWorkload
	byNode
	entriesByNamespace
	byPair
)

// Read is one recorded read: this key was looked up in this index.
type Read struct {
	Table Table
	Index Index
	Key   string
}

// Changes are the Reads whose result may have changed with a commit.
type Changes map[Read]struct{}

// ChangesAnswers tells whether a proxy may have other Attributes with a commit though
// nothing of the proxy changed.
func ChangesAnswers(c Changes) bool {
	for _, r := range []Read{{Config, ByKey, ""}, {Namespaces, Holders, ""}, {Sidecars, Holders, ""}} {
		if _, ok := c[r]; ok {
			return true
		}
	}
	return false
}

func (c Changes) add(t Table, i Index, key string) { c[Read{t, i, key}] = struct{}{} }

// Attribute is one question about the proxy, for instance the value of a label.
type Attribute struct {
	Kind AttributeKind
	// Key is the label's key, or the selector in canonical form; "" for others.
	Key string
}

// Record is what was read in the course of building one thing. The zero value
// is ready; it's for one goroutine.
type Record struct {
	reads      map[Read]struct{}
	attributes map[Attribute]string
}

func (r *Record) read(t Table, i Index, key string) {
	if r == nil {
		return
	}
	if r.reads == nil {
		r.reads = map[Read]struct{}{}
	}
	r.reads[Read{t, i, key}] = struct{}{}
}

func (r *Record) attribute(a Attribute, value string) {
	if r == nil {
		return
	}
	if r.attributes == nil {
		r.attributes = map[Attribute]string{}
	}
	r.attributes[a] = value
}

// Reads that were recorded, in no particular order.
func (r *Record) Reads() []Read { return slices.Collect(maps.Keys(r.reads)) }

// Attributes that were asked for, sorted, and their values in the same order.
// A builder gives the same result for every proxy with these values.
func (r *Record) Attributes() ([]Attribute, []string) {
	as := slices.SortedFunc(maps.Keys(r.attributes), CompareAttributes)
	values := make([]string, len(as))
	for i, a := range as {
		values[i] = r.attributes[a]
	}
	return as, values
}

// CompareAttributes orders attributes as Record.Attributes does.
func CompareAttributes(a, b Attribute) int {
	if a.Kind != b.Kind {
		return int(a.Kind) - int(b.Kind)
	}
	return strings.Compare(a.Key, b.Key)
}
