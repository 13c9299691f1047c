// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

func TestPace(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		// sent since the commit, and how long ago that was.
		sent uint64
		ago  time.Duration
		want time.Duration
	}{
		"nobody heard of the last commit":          {0, 0, 0},
		"a thousand proxies did, just now":         {1000, 0, 200 * time.Millisecond},
		"a thousand proxies did, a moment ago":     {1000, 50 * time.Millisecond, 150 * time.Millisecond},
		"a thousand proxies did, long ago":         {1000, time.Minute, 200*time.Millisecond - time.Minute},
		"more was sent than anybody should wait":   {1e9, 0, longestRest},
		"few proxies hardly hold up the next":      {10, 0, 2 * time.Millisecond},
		"nothing was sent yet, nothing is waited.": {0, time.Microsecond, -time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent, now := uint64(7), time.Unix(1000, 0)
			p := &pace{responses: func() uint64 { return sent }, now: func() time.Time { return now }}
			if p.rest() > 0 {
				t.Error("the first commit has to wait")
			}
			p.then(func(*snapshot.Snapshot, snapshot.Changes) {})(nil, nil)
			sent, now = sent+tt.sent, now.Add(tt.ago)
			if got := p.rest(); got != tt.want {
				t.Errorf("rest is %s, want %s", got, tt.want)
			}
		})
	}
}
