// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ir

import (
	"net/netip"
	"time"
)

// RouteConfig is a table of virtual hosts.
type RouteConfig struct {
	Name         string
	VirtualHosts []VirtualHost
	// HostsApart is true if more of them come on their own.
	HostsApart bool
}

// VirtualHost is the routes of a set of domains.
type VirtualHost struct {
	Name    string
	Domains []string
	Routes  []Route
	// RequireTLS redirects plaintext requests to https.
	RequireTLS bool
	// NoAttemptCount leaves out the header that counts attempts.
	NoAttemptCount bool
}

// StringMatchKind tells how a StringMatch compares.
type StringMatchKind uint8

// Kinds of string matches.
const (
	MatchExact StringMatchKind = iota
	MatchPrefix
	MatchRegex
	MatchSuffix
	// MatchPresent is satisfied by any value.
	MatchPresent
)

// StringMatch compares a string.
type StringMatch struct {
	Kind       StringMatchKind
	Value      string
	IgnoreCase bool
}

// NamedMatch applies a StringMatch to a header or query parameter.
type NamedMatch struct {
	Name   string
	Match  StringMatch
	Invert bool
}

// RouteMatch selects requests; all conditions hold.
type RouteMatch struct {
	// Connect matches CONNECT requests, and ends their tunnel here.
	Connect bool
	// Path; its zero value matches every path.
	Path    StringMatch
	Headers []NamedMatch
	Query   []NamedMatch
}

// HeaderOps changes headers on the way in and back.
type HeaderOps struct {
	Request, Response HeaderChange
}

// Empty tells whether nothing is changed.
func (o HeaderOps) Empty() bool { return o.Request.empty() && o.Response.empty() }

// HeaderChange adds, sets and removes headers. Maps are emitted sorted.
type HeaderChange struct {
	Add, Set map[string]string
	Remove   []string
}

func (c HeaderChange) empty() bool { return len(c.Add)+len(c.Set)+len(c.Remove) == 0 }

// Route is one match and what happens then: exactly one of Forward, Redirect and Direct.
type Route struct {
	Name     string
	Match    RouteMatch
	Forward  *Forward
	Redirect *Redirect
	Direct   *Direct
	Headers  HeaderOps
	Fault    *Fault
	CORS     *CORS
	// Config is where the route comes from, as a path of the API.
	Config string
	// Operation names the span of tracers.
	Operation string
	// Dialled, if set, are the only addresses that the client may have dialled.
	// Others get 403.
	Dialled *Dialled
	// OfferALPN overrides what HTTP.UpstreamALPN offers to this route's upstream.
	OfferALPN []string
}

// Dialled is a set of addresses. An empty one refuses everybody.
type Dialled struct{ Ranges []netip.Prefix }

// Forward sends a request to clusters.
type Forward struct {
	Clusters []WeightedCluster
	// Timeout of the whole request; 0 means none.
	Timeout time.Duration
	Retry   *Retry
	Mirrors []Mirror
	Rewrite Rewrite
	Hash    []HashPolicy
}

// Rewrite of path and authority; at most one of Prefix, Regex and FullPath.
type Rewrite struct {
	Authority string
	Prefix    string
	// HasPrefix tells an empty Prefix from none.
	HasPrefix           bool
	Regex, Substitution string
}

// Retry policy.
type Retry struct {
	On          string
	Attempts    uint32
	PerTry      time.Duration
	BackOff     time.Duration
	StatusCodes []uint32
	// Failures are values of FailureHeader in answers that are tried again.
	Failures []string
	// IgnorePrevious allows the host that has failed to be tried again.
	IgnorePrevious bool
}

// FailureHeader is set by the egress gateway on the answers that it gives in the
// place of a host it could not reach, so that a sidecar's retry conditions mean the
// host and not the gateway. Its value is one of the two below.
const FailureHeader = "x-isthmus-failure"

// Values of FailureHeader.
const (
	FailedToConnect = "connect"
	FailedByReset   = "reset"
)

// Mirror copies requests.
type Mirror struct {
	Cluster string
	// PerMillion is the share.
	PerMillion uint32
}

// HashPolicy feeds consistent hashing; exactly one field group is used.
type HashPolicy struct {
	Header     string
	Query      string
	SourceIP   bool
	Cookie     string
	CookieTTL  *time.Duration
	CookiePath string
}

// Redirect answers with another location.
type Redirect struct {
	Code      uint32
	Scheme    string
	Host      string
	Port      uint32
	Path      string
	Prefix    string
	HasPrefix bool
	HTTPS     bool
}

// Direct answers at once.
type Direct struct {
	Status uint32
	Body   []byte
}

// Fault injects delays and aborts; shares are in millionths.
type Fault struct {
	Delay       time.Duration
	DelayShare  uint32
	AbortStatus uint32
	AbortGRPC   *uint32
	AbortShare  uint32
}

// CORS policy.
type CORS struct {
	Origins       []StringMatch
	Methods       []string
	AllowHeaders  []string
	ExposeHeaders []string
	MaxAge        string
	Credentials   *bool
	// ForwardUnmatched passes preflights of other origins on to the upstream.
	ForwardUnmatched *bool
}
