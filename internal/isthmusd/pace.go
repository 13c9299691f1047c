// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

const (
	// restEach is what the next commit waits for each response that the last one
	// made: about five times the CPU that a response and its answer take, so that
	// telling proxies of changes takes a fifth of a core however fast those come.
	restEach = 200 * time.Microsecond
	// longestRest bounds what a change can wait for.
	longestRest = 250 * time.Millisecond
)

// pace lets changes gather while proxies are told of the last ones. A change that
// comes alone never waits; of many, each costs less the more proxies there are.
// What it goes by is what was sent, so that changes which nobody hears of hold up
// nothing. All belongs to the goroutine that commits.
type pace struct {
	// responses that were sent until now.
	responses func() uint64
	now       func() time.Time

	at     time.Time
	before uint64
}

// then begins the rest with each commit that is passed on.
func (p *pace) then(pass func(*snapshot.Snapshot, snapshot.Changes)) func(*snapshot.Snapshot, snapshot.Changes) {
	return func(s *snapshot.Snapshot, changes snapshot.Changes) {
		p.at, p.before = p.now(), p.responses()
		pass(s, changes)
	}
}

// rest is how long the next commit has to wait from now on.
func (p *pace) rest() time.Duration {
	made := min(p.responses()-p.before, uint64(longestRest/restEach))
	return time.Duration(made)*restEach - p.now().Sub(p.at)
}
