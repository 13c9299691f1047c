// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package netlab runs the whole data path without Kubernetes: real isthmusd, real
// agents and Envoys, real applications, in seconds. Each case has a world of its
// own, made of network namespaces, so that cases run side by side:
//
//	         ┌─────────── router: forwards, answers DNS ───────────┐
//	pod      pod          gateway            isthmusd            host outside
//	testapp  testapp      agent+Envoy        --config-dir        testapp
//	agent+Envoy, redirected by nftables
//
// A case says what there is, applies YAML, and asks:
//
//	lab := netlab.New(t)
//	a, b := lab.Pod("a"), lab.Pod("b")
//	lab.Apply(yaml)
//	a.Ask("http://b/").Want(200)
//
// The lab plays those parts of Kubernetes that matter to the mesh: addresses,
// tokens, mounted files, EndpointSlices, names. When a case fails it prints what
// the proxies logged and what they had been told. Nothing outlives the test
// process, however it ends: a namespace lives by the threads and processes in it,
// and these die with it.
package netlab
