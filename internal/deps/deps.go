// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package deps keeps planned modules in go.mod until the packages that use them exist.
package deps

import (
	_ "github.com/coder/websocket"
	_ "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	_ "golang.org/x/net/http2"
	_ "sigs.k8s.io/controller-runtime/pkg/envtest"
)
