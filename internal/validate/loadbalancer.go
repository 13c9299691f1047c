// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func checkBalancer(c checker, b *networking.LoadBalancerSettings, outlier *networking.OutlierDetection) {
	if b == nil {
		return
	}
	if h, ok := b.LbPolicy.(*networking.LoadBalancerSettings_ConsistentHash); ok {
		checkConsistentHash(c.at("consistentHash"), h.ConsistentHash)
		if b.WarmupDurationSecs != nil || b.Warmup != nil { //nolint:staticcheck // deprecated, but still served
			c.at("warmup").warn("it has no effect beside consistentHash", "use ROUND_ROBIN or LEAST_REQUEST")
		}
	}
	checkDuration(c.at("warmupDurationSecs"), b.WarmupDurationSecs) //nolint:staticcheck // deprecated, but still served
	if w := b.Warmup; w != nil {
		if w.Duration == nil {
			c.at("warmup").at("duration").refuse("it is missing", "use a duration such as 30s")
		}
		checkDuration(c.at("warmup").at("duration"), w.Duration)
		if w.MinimumPercent != nil {
			checkPercentage(c.at("warmup").at("minimumPercent"), w.MinimumPercent.Value)
		}
		if w.Aggression != nil && !(w.Aggression.Value >= 1) {
			c.at("warmup").at("aggression").refuse(fmt.Sprintf("%v is below 1", w.Aggression.Value), "use 1 or more")
		}
	}
	checkLocalityLB(c.at("localityLbSetting"), b.LocalityLbSetting, outlier)
}

// maxRing is Envoy's limit.
const maxRing = 8 << 20

// maxTable is Envoy's limit for Maglev.
const maxTable = 5000011

func checkConsistentHash(c checker, h *networking.LoadBalancerSettings_ConsistentHashLB) {
	switch k := h.GetHashKey().(type) {
	case nil:
		c.refuse("there is nothing to hash", "use httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName")
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		checkHeaderName(c.at("httpHeaderName"), k.HttpHeaderName)
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		if k.HttpQueryParameterName == "" {
			c.at("httpQueryParameterName").refuse("it must not be empty", "")
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		if k.HttpCookie.GetName() == "" {
			c.at("httpCookie").at("name").refuse("it is missing", "use the name of a cookie")
		}
		if d := k.HttpCookie.GetTtl(); d != nil && (d.CheckValid() != nil || d.AsDuration() < 0) {
			c.at("httpCookie").at("ttl").refuse("it is below 0", "use 0s for a cookie of the session")
		}
	}
	if r := h.GetRingHash(); r != nil && r.MinimumRingSize > maxRing {
		c.at("ringHash").at("minimumRingSize").refuse(fmt.Sprintf("%d is above %d", r.MinimumRingSize, maxRing), "use a smaller ring")
	}
	if m := h.GetMaglev(); m != nil && m.TableSize != 0 && (m.TableSize > maxTable || !isPrime(m.TableSize)) {
		c.at("maglev").at("tableSize").refuse(fmt.Sprintf("%d is not a prime number up to %d", m.TableSize, maxTable), "use a prime such as 65537")
	}
}

func isPrime(n uint64) bool {
	if n < 2 {
		return false
	}
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

func checkLocalityLB(c checker, l *networking.LocalityLoadBalancerSetting, outlier *networking.OutlierDetection) {
	if l == nil {
		return
	}
	if len(l.Distribute) > 0 && (len(l.Failover) > 0 || len(l.FailoverPriority) > 0) {
		c.at("distribute").refuse("failover or failoverPriority is set too", "use one of them")
	}
	if (len(l.Failover) > 0 || len(l.FailoverPriority) > 0) && outlier == nil {
		c.at("failover").warn("without outlierDetection nobody notices that a locality fails", "add outlierDetection")
	}
	for i, d := range l.Distribute {
		checkDistribute(c.at("distribute").index(i), d)
	}
	for i, f := range l.Failover {
		at := c.at("failover").index(i)
		for _, end := range []struct{ field, region string }{{"from", f.GetFrom()}, {"to", f.GetTo()}} {
			if end.region == "" || strings.ContainsAny(end.region, "*/") {
				at.at(end.field).refuse(quote(end.region)+" is not a region", "use a region without zones or wildcards")
			}
		}
		if f.GetFrom() == f.GetTo() {
			at.refuse("from and to are the same", "fail over to another region")
		}
	}
	for i, p := range l.FailoverPriority {
		if p == "" || slices.Contains(l.FailoverPriority[:i], p) {
			c.at("failoverPriority").index(i).refuse(quote(p)+" is empty or there twice", "use labels that differ")
		}
	}
}

func checkDistribute(c checker, d *networking.LocalityLoadBalancerSetting_Distribute) {
	checkLocality(c.at("from"), d.GetFrom())
	if d.GetFrom() == "" {
		c.at("from").refuse("it is missing", "use a locality such as region/zone")
	}
	var total uint64
	for _, to := range sortedKeys(d.GetTo()) {
		at := c.at("to").key(to)
		checkLocality(at, to)
		if d.To[to] == 0 {
			at.refuse("a weight of 0 does nothing", "leave the locality out")
		}
		total += uint64(d.To[to])
	}
	if total != 100 {
		c.at("to").refuse(fmt.Sprintf("the weights sum up to %d", total), "make it 100")
	}
}

// locality is region, region/zone or region/zone/subzone; the last may be *.
var locality = regexp.MustCompile(`^(\*|[^*/\s]+(/[^*/\s]+){0,2}|[^*/\s]+(/[^*/\s]+)?/\*)$`)

func checkLocality(c checker, l string) {
	if l != "" && !locality.MatchString(l) {
		c.refuse(quote(l)+" is not a locality", "use region/zone/subzone; only the last part may be *")
	}
}
