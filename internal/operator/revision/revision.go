// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package revision holds the names of what the operator makes: every one ends in
// the topology's name or in its revision, so that several topologies, revisions
// and somebody else's Istio live side by side.
package revision

import (
	"strconv"
	"strings"
)

// ControlPlane is the name of isthmusd's Service, ServiceAccount and bindings.
func ControlPlane(topology string) string { return "isthmusd-" + topology }

// ControlPlaneHost is the DNS name of the control plane's Service, which is also in
// its certificate.
func ControlPlaneHost(topology, namespace string) string {
	return ControlPlane(topology) + "." + namespace + ".svc"
}

// Deployment is the name of isthmusd's Deployment of a revision.
func Deployment(revision string) string { return "isthmusd-" + revision }

// Gateway is the name of a gateway's Deployment, Service and ServiceAccount.
func Gateway(gateway, topology string) string { return gateway + "-" + topology }

// Egress is the name of the egress gateway among gateways.
const Egress = "egress"

// CASecret holds the signing key.
func CASecret(topology string) string { return "isthmus-ca-" + topology }

// Injector is the MutatingWebhookConfiguration.
func Injector(topology string) string { return "isthmus-injector-" + topology }

// Validator is the ValidatingWebhookConfiguration.
func Validator(topology string) string { return "isthmus-validator-" + topology }

// Policy is the name of a NetworkPolicy: what it is around, then the topology.
func Policy(around, topology string) string { return "isthmus-" + around + "-" + topology }

// Destination is the name of the ServiceEntry of a destination in spec.
func Destination(destination, topology string) string { return destination + "-" + topology }

// Access binds the operator's namespaced role in a topology's namespace.
func Access(topology string) string { return "isthmus-operator-" + topology }

// Guard is the ValidatingAdmissionPolicy over pods.
func Guard(topology string) string { return "isthmus-guard-" + topology }

// GuardOf is a ValidatingAdmissionPolicy over something else than pods.
func GuardOf(what, topology string) string { return "isthmus-guard." + what + "-" + topology }

// Binding is the binding of a policy to the namespaces of one selector.
func Binding(policy string, selector int, topology string) string {
	return strings.TrimSuffix(policy, "-"+topology) + "." + strconv.Itoa(selector) + "-" + topology
}
