// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package memory

// forgetCode does nothing: only Linux tells which pages can go.
func forgetCode() error { return nil }
