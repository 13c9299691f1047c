// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package mutation takes every rule of the wall away, one at a time, and asks
// whether any case would notice. A rule whose loss nobody notices is either not
// needed or not tested; the test fails and names it.
//
// NetworkPolicies are judged by their definition, purely: thousands of verdicts a
// second. That real enforcers and the definition agree is what the cluster's own
// tests and the end-to-end tests are for.
package mutation
