// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package deps keeps planned modules in go.mod until the packages that use them exist.
package deps

import (
	_ "github.com/coder/websocket"
	_ "golang.org/x/net/http2"
)
