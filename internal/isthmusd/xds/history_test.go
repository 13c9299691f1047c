// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strconv"
	"testing"
)

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	var h history
	for i := range keptWorkloads + 10 {
		k := workloadKey{"shop", "default", strconv.Itoa(i)}
		for j := range keptUses + 10 {
			h.note(k, strconv.Itoa(j))
			h.note(k, strconv.Itoa(j))
			if i > 0 && j == 1 {
				break
			}
		}
		if i == 0 {
			if got := h.of(k); len(got) != keptUses || got[0] != "10" {
				t.Errorf("of one workload %d uses are kept, the oldest %s", len(got), got[0])
			}
		}
	}
	if len(h.uses) != keptWorkloads || len(h.order) != keptWorkloads || len(h.of(workloadKey{"shop", "default", "9"})) != 0 {
		t.Errorf("%d workloads are kept", len(h.uses))
	}
	if got := h.of(workloadKey{"shop", "default", "10"}); len(got) != 2 {
		t.Errorf("the oldest that is kept has %v", got)
	}
}
