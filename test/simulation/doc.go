// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package simulation says where a request ends, from a proxy's configuration
// alone: which listener takes the connection, which filter chain, which virtual
// host and route, which cluster and endpoints, or why it goes no further. It walks
// the configuration in the order that Envoy documents:
//
//	listener (by address, by original destination) → listener filters →
//	filter chain (eight criteria, no way back) → TLS → network filters →
//	route table → virtual host → route → HTTP filters → cluster → endpoints
//
// Evaluate does that for one proxy, Walk from proxy to proxy until an application
// or nobody is reached. What chance decides (weights, fault percentages) splits
// the result: each Outcome has its share. What the package does not model ends in
// the verdict Undecided, never in a guess. Virtual hosts that come on their own count
// as part of their table: Envoy shows them there, and isthmusd sends all of them.
//
// It is a library: no testing, no I/O. A Config comes from the resources that
// isthmusd makes (FromState) or from a running Envoy's /config_dump (FromDump).
// Tests hold it against real Envoys, see docs/testing.md.
package simulation
