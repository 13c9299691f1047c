// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package acceptance tries the whole command: it brings a cluster up, runs pods
// in it and takes it down. It needs root and the cluster's binaries.
package acceptance
