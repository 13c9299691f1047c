// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package charts holds the Helm charts: isthmus, which people install, and
// controlplane and gateway, which the operator renders. They are data; package
// render reads them.
package charts

import "embed"

//go:generate go run ./generate

// FS holds each chart in a directory of its name, and templates that charts share
// in library.
//
//go:embed all:controlplane all:gateway all:isthmus all:library
var FS embed.FS

// Names of the charts.
const (
	// Operator is the chart for people: operator, roles and CRDs.
	Operator = "isthmus"
	// ControlPlane is isthmusd of one topology.
	ControlPlane = "controlplane"
	// Gateway is one ingress or egress gateway.
	Gateway = "gateway"
)
