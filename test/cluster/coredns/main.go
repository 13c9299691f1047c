// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command coredns is CoreDNS with the few plugins that the cluster's Corefile names.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	// The order of plugins is this list, not the Corefile: the template that
	// answers NXDOMAIN to everything has to be last.
	dnsserver.Directives = []string{
		"metadata", "reload", "bind", "health", "ready", "prometheus", "errors", "log", "cache",
		"rewrite", "hosts", "kubernetes", "file", "loop", "forward", "template",
	}
	coremain.Run()
}
