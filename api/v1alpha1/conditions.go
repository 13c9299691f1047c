// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Types of conditions. All but MemberPolicyApplied are of MeshTopology, and all of
// them are always present there. Ready, Reconciling and Stalled follow kstatus:
// what only takes time is Reconciling, what needs a person is Stalled.
const (
	ConditionReady             = "Ready"
	ConditionReconciling       = "Reconciling"
	ConditionStalled           = "Stalled"
	ConditionAccepted          = "Accepted"
	ConditionAPIsAvailable     = "APIsAvailable"
	ConditionMembersResolved   = "MembersResolved"
	ConditionCAReady           = "CAReady"
	ConditionControlPlaneReady = "ControlPlaneReady"
	ConditionInjectionReady    = "InjectionReady"
	ConditionGatewaysReady     = "GatewaysReady"
	ConditionConfigDistributed = "ConfigDistributed"
	ConditionEgressEnforced    = "EgressEnforced"
)

// Types of conditions of MeshMember, besides Ready.
const (
	// ConditionPolicyApplied is True while the egress NetworkPolicies stand.
	ConditionPolicyApplied = "PolicyApplied"
)

// Reasons, of conditions and of Events alike.
const (
	ReasonReady              = "Ready"
	ReasonAccepted           = "Accepted"
	ReasonInvalid            = "Invalid"
	ReasonUnsupportedVersion = "UnsupportedVersion"
	ReasonNamespaceTaken     = "NamespaceTaken"
	ReasonSuspended          = "Suspended"
	ReasonDeleting           = "Deleting"
	ReasonInstalling         = "Installing"
	ReasonTransition         = "Transition"
	ReasonProgressing        = "Progressing"
	ReasonWaiting            = "Waiting"
	ReasonSettled            = "Settled"
	ReasonApplyFailed        = "ApplyFailed"
	ReasonNotStalled         = "NotStalled"
	ReasonAvailable          = "Available"
	ReasonUnavailable        = "Unavailable"
	ReasonMissing            = "Missing"
	ReasonResolved           = "Resolved"
	ReasonOverlap            = "Overlap"
	ReasonNoMembers          = "NoMembers"
	ReasonExpiring           = "Expiring"
	ReasonUnusable           = "Unusable"
	ReasonLost               = "Lost"
	ReasonRootChanged        = "RootChanged"
	ReasonDeadlineExceeded   = "DeadlineExceeded"
	ReasonProbeFailed        = "ProbeFailed"
	ReasonNone               = "NoGateways"
	ReasonAcknowledged       = "Acknowledged"
	ReasonLagging            = "Lagging"
	ReasonNotMeasured        = "NotMeasured"
	ReasonNotApplicable      = "NotApplicable"
	ReasonNotEnforced        = "NotEnforced"
	ReasonPolicyHole         = "PolicyHole"
	ReasonUninjected         = "Uninjected"
)

// Phases of a transition. A tighter topology is reached by Preparing, Routing,
// Enforcing; a looser one by Relaxing, Routing, Retiring.
const (
	PhasePreparing = "Preparing"
	PhaseRouting   = "Routing"
	PhaseEnforcing = "Enforcing"
	PhaseRelaxing  = "Relaxing"
	PhaseRetiring  = "Retiring"
)

// Labels, annotations and the finalizer of everything the operator makes.
const (
	// LabelTopology names the MeshTopology.
	LabelTopology = "isthmus.dev/topology"
	// LabelComponent names the part, one of the components below.
	LabelComponent = "isthmus.dev/component"
	// LabelGateway names a gateway, on its pods and objects.
	LabelGateway = "isthmus.dev/gateway"
	// LabelRevision names a control plane's revision.
	LabelRevision = "isthmus.dev/revision"
	// LabelEnforced is on member namespaces while the wall stands there, with the
	// topology's name; written by the operator, and refused to everybody else.
	LabelEnforced = "isthmus.dev/enforced"
	// AnnotationReplicas is the replicas that the spec asks for.
	AnnotationReplicas = "isthmus.dev/replicas"
	// AnnotationReplicasWritten is those that the operator wrote last.
	AnnotationReplicasWritten = "isthmus.dev/replicas-written"
	// AnnotationFingerprint and AnnotationNotAfter describe a root certificate.
	AnnotationFingerprint = "isthmus.dev/root-fingerprint"
	AnnotationNotAfter    = "isthmus.dev/ca-not-after"
	// AnnotationAccount, on pod templates, is the uid of the ServiceAccount whose
	// tokens the pods hold: those of another are not taken.
	AnnotationAccount = "isthmus.dev/service-account-uid"
	// AnnotationProblem, on the root's ConfigMap, is why the CA cannot be used now: a
	// reason, a colon, and a message.
	AnnotationProblem = "isthmus.dev/ca-problem"
	// AnnotationProbe records the answer of the injection webhook's probe.
	AnnotationProbe = "isthmus.dev/probe"
	// Finalizer holds a MeshTopology until everything it made is gone.
	Finalizer = "isthmus.dev/topology"
)

// Components: values of LabelComponent.
const (
	ComponentControlPlane   = "control-plane"
	ComponentIngressGateway = "ingress-gateway"
	ComponentEgressGateway  = "egress-gateway"
	ComponentNetworkPolicy  = "network-policy"
	ComponentDestination    = "destination"
	ComponentTrust          = "trust"
	ComponentMember         = "member"
	ComponentWebhook        = "webhook"
	ComponentGuard          = "guard"
)
