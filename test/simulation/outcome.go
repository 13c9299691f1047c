// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// Verdict is how it ends at one proxy.
type Verdict string

// Verdicts.
const (
	// Forwarded to Cluster, which has the Endpoints.
	Forwarded Verdict = "forwarded"
	// Answered by the proxy itself with Status.
	Answered Verdict = "answered"
	// Closed without an answer.
	Closed Verdict = "closed"
	// Refused: no listener has a socket there.
	Refused Verdict = "refused"
	// Undecided: it depends on what this package does not model.
	Undecided Verdict = "undecided"
)

// Outcome is one way in which a request may end at a proxy.
type Outcome struct {
	Verdict Verdict
	// Reason for the verdict, for a person.
	Reason string
	// Share of such requests that end like this, of 1.
	Share float64

	Listener, Chain                 string
	RouteConfig, VirtualHost, Route string

	// Status that the proxy answers, and Location where it redirects.
	Status   int
	Location string
	// GRPC is the gRPC status of an answer whose Status is 200.
	GRPC uint32

	Cluster   string
	Endpoints []Endpoint
	// Forward is the request as it is sent on; see Upstream.
	Forward Request
	// Peer is who the outermost TLS that ended here says the client is, by its URIs.
	Peer []string

	// Timeout for the whole answer, 0 for none, and for each try.
	Timeout, TryTimeout time.Duration
	// Retries at most, on the conditions RetryOn, among them the statuses RetryStatus.
	Retries     uint32
	RetryOn     string
	RetryStatus []uint32
	// Delay that a fault adds.
	Delay time.Duration
	// Logged: the access log of the chain has a line about it.
	Logged bool
	// Mirrors are clusters that get a copy.
	Mirrors []string

	// Trace says what was looked at and why it was taken, a line each.
	Trace []string

	http bool
	// opens tells that the bytes go on in a tunnel, ends that they come out of one.
	opens, ends bool
	alpn        []string
	owner       *Config
}

// Endpoint is where a cluster may send a request.
type Endpoint struct {
	// Address, or Name and Port to be resolved, or the Internal listener, or a
	// socket's Path.
	Address  netip.AddrPort
	Name     string
	Port     uint16
	Internal string
	Path     string
	// hostname is for certificates; match chooses the transport.
	hostname string
	match    *structpb.Struct
	// never are ranges in which the name's addresses do not count.
	never *matcherv3.AddressMatcher
}

// String is the address, whatever its kind.
func (e Endpoint) String() string {
	switch {
	case e.Internal != "":
		return "internal:" + e.Internal
	case e.Path != "":
		return e.Path
	case e.Name != "":
		return fmt.Sprintf("%s:%d", e.Name, e.Port)
	}
	return e.Address.String()
}

// Summary is one line about the outcome.
func (o Outcome) Summary() string {
	var b strings.Builder
	if o.Share < 1 {
		fmt.Fprintf(&b, "%.3g%%: ", o.Share*100)
	}
	b.WriteString(string(o.Verdict))
	switch o.Verdict {
	case Forwarded:
		fmt.Fprintf(&b, " to cluster %s", o.Cluster)
		for i, e := range o.Endpoints {
			sep := ", "
			if i == 0 {
				sep = ": "
			}
			b.WriteString(sep + e.String())
		}
	case Answered:
		fmt.Fprintf(&b, " with %d", o.Status)
		if o.Location != "" {
			fmt.Fprintf(&b, " to %s", o.Location)
		}
	}
	if o.Reason != "" {
		b.WriteString(" (" + o.Reason + ")")
	}
	return b.String()
}

// Explain is the trace and the end, for a person.
func (o Outcome) Explain() string {
	return "  " + strings.Join(append(o.Trace, "⇒ "+o.Summary()), "\n  ") + "\n"
}
