// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
)

// accepted and rejected count what proxies have said to configuration, over all labs.
var accepted, rejected atomic.Int64

// Tally tells how many configurations the proxies of all labs accepted and rejected.
func Tally() string {
	return fmt.Sprintf("real Envoys accepted %d configurations and rejected %d, all of these on purpose", accepted.Load(), rejected.Load())
}

// WantRejected waits until isthmusd knows which resource it was that this gateway rejected.
func (l *Lab) WantRejected(proxy, resource string) {
	l.t.Helper()
	l.must(await(patience, func() error {
		b, err := l.plane.space.get("tcp", debugAddr, "/debug/syncz")
		if err != nil {
			return err
		}
		var known struct {
			Quarantined []xds.Quarantined `json:"quarantined"`
		}
		if err := json.Unmarshal(b, &known); err != nil {
			return err
		}
		for _, q := range known.Quarantined {
			if q.Name == resource && slices.Contains(q.By, systemNamespace+"/"+proxy) {
				return nil
			}
		}
		return fmt.Errorf("%s has not rejected %s: %s", proxy, resource, b)
	}))
}

// WantRejections says that the case provokes rejections. Every other one fails if
// a proxy rejects anything.
func (l *Lab) WantRejections() { l.provoked = true }

// judge fails the case if a proxy rejected what it was told, unless that was the
// point. Both sides are asked: isthmusd knows of proxies that are gone, and Envoy
// of rejections that isthmusd might not have counted.
func (l *Lab) judge() {
	l.count()
	accepted.Add(int64(l.accepted))
	rejected.Add(int64(l.rejected))
	theirs := 0
	for _, p := range l.pods {
		if p.agent == nil {
			continue
		}
		if b, err := p.Admin("/stats?filter=update_rejected$"); err == nil {
			theirs += sum(string(b), regexp.MustCompile(`(?m)update_rejected: (\d+)$`))
		}
	}
	switch {
	case l.provoked && l.rejected == 0:
		l.t.Error("netlab: no proxy rejected anything, though the case is to provoke it")
	case !l.provoked && l.rejected+theirs > 0:
		l.t.Errorf("netlab: proxies rejected configurations: %d as isthmusd counts, %d as they count", l.rejected, theirs)
	}
}

// count adds what the running isthmusd has counted.
func (l *Lab) count() {
	if l.plane == nil || l.plane.process == nil || l.plane.process.ended() {
		return
	}
	b, err := l.plane.space.get("tcp", debugAddr, "/metrics")
	if err != nil {
		l.t.Errorf("netlab: metrics of isthmusd: %v", err)
		return
	}
	l.accepted += sum(string(b), regexp.MustCompile(`(?m)^isthmusd_xds_acks_total\{.*\} (\S+)$`))
	l.rejected += sum(string(b), regexp.MustCompile(`(?m)^pilot_total_xds_rejects\{.*\} (\S+)$`))
}

func sum(text string, number *regexp.Regexp) int {
	total := 0.0
	for _, m := range number.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.ParseFloat(strings.TrimSpace(m[1]), 64)
		total += n
	}
	return int(total)
}
