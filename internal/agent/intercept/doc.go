// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package intercept sends a pod's TCP connections to the Envoy beside it. It
// decides (Rules, pure), prints (Plan.String, as nft reads it) and applies
// (Apply, over netlink) one table of NAT rules for IPv4 and IPv6. The rules are
// those of Istio's init container, so that pods behave alike in either mesh:
//
//	prerouting  every TCP connection to the pod goes to the inbound port, less
//	            the agent's own ports and excluded ones.
//	output      every TCP connection of the application goes to the outbound
//	            port. The proxy's own connections do not, or they would loop,
//	            except one: application -> proxy -> the same pod by its own
//	            address goes to the inbound port, so that a pod that calls its
//	            own Service is treated as any peer.
//
// What the proxy hands to the application comes from 127.0.0.6 or ::6 and passes.
package intercept
