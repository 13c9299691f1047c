// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func checkFault(c checker, f *networking.HTTPFaultInjection) {
	if f == nil {
		return
	}
	if f.Delay == nil && f.Abort == nil {
		c.refuse("it does nothing", "add delay or abort")
	}
	if d := f.Delay; d != nil {
		checkPercent(c.at("delay").at("percentage"), d.Percentage)
		fixed, ok := d.HttpDelayType.(*networking.HTTPFaultInjection_Delay_FixedDelay)
		switch {
		case !ok || fixed.FixedDelay == nil:
			c.at("delay").at("fixedDelay").refuse("it is missing", "use a duration such as 5s")
		default:
			checkDuration(c.at("delay").at("fixedDelay"), fixed.FixedDelay)
		}
	}
	checkAbort(c.at("abort"), f.Abort)
}

func checkAbort(c checker, a *networking.HTTPFaultInjection_Abort) {
	if a == nil {
		return
	}
	checkPercent(c.at("percentage"), a.Percentage)
	switch t := a.ErrorType.(type) {
	case *networking.HTTPFaultInjection_Abort_HttpStatus:
		checkStatus(c.at("httpStatus"), int64(t.HttpStatus))
	case *networking.HTTPFaultInjection_Abort_GrpcStatus:
		if !slices.Contains(grpcStatuses(), t.GrpcStatus) {
			c.at("grpcStatus").refuse(quote(t.GrpcStatus)+" is not a status of gRPC", "use one of "+strings.Join(grpcStatuses(), ", "))
		}
	default:
		c.refuse("it has no status", "use httpStatus or grpcStatus")
	}
}

func grpcStatuses() []string {
	return []string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
		"DATA_LOSS", "UNAUTHENTICATED",
	}
}

func checkMirrors(c checker, r *networking.HTTPRoute) {
	if r.Mirror != nil && len(r.Mirrors) > 0 {
		c.at("mirror").refuse("mirrors is set too", "use mirrors alone")
	}
	if r.Mirror != nil {
		checkDestination(c.at("mirror"), r.Mirror)
	}
	if p := r.MirrorPercent; p != nil && p.Value > 100 { //nolint:staticcheck // deprecated, but still served
		c.at("mirrorPercent").refuse(fmt.Sprintf("%d is not a percentage", p.Value), "use mirrorPercentage with a value from 0 to 100")
	}
	checkPercent(c.at("mirrorPercentage"), r.MirrorPercentage)
	for i, m := range r.Mirrors {
		at := c.at("mirrors").index(i)
		checkDestination(at.at("destination"), m.GetDestination())
		checkPercent(at.at("percentage"), m.GetPercentage())
	}
}

func checkCORS(c checker, p *networking.CorsPolicy) {
	if p == nil {
		return
	}
	for i, o := range p.AllowOrigins {
		checkCondition(c.at("allowOrigins").index(i), o, needsText)
		if o.GetExact() == "*" && p.AllowCredentials.GetValue() {
			c.at("allowCredentials").warn("every origin may send credentials", "name the origins")
		}
	}
	for i, m := range p.AllowMethods {
		if m == "" || strings.ToUpper(m) != m || strings.ContainsAny(m, " ,") {
			c.at("allowMethods").index(i).refuse(quote(m)+" is not a method", "use one method in capitals, such as GET")
		}
	}
	checkHeaderNames(c.at("allowHeaders"), p.AllowHeaders)
	checkHeaderNames(c.at("exposeHeaders"), p.ExposeHeaders)
	if d := p.MaxAge; d != nil && (d.CheckValid() != nil || d.AsDuration() < 0 || d.Nanos != 0) {
		c.at("maxAge").refuse(fmt.Sprintf("%s is not a number of seconds", d.AsDuration()), "use whole seconds, such as 24h")
	}
}

func checkHeaders(c checker, h *networking.Headers) {
	checkOperations(c.at("request"), h.GetRequest())
	checkOperations(c.at("response"), h.GetResponse())
}

func checkOperations(c checker, o *networking.Headers_HeaderOperations) {
	checkNewHeaders(c.at("set"), o.GetSet())
	checkNewHeaders(c.at("add"), o.GetAdd())
	for i, h := range o.GetRemove() {
		checkHeaderName(c.at("remove").index(i), h)
		if strings.EqualFold(h, "host") {
			c.at("remove").index(i).refuse("a request cannot go without its host", "set it instead")
		}
	}
}

func checkNewHeaders(c checker, m map[string]string) {
	for _, h := range sortedKeys(m) {
		if h != ":authority" { // Istio takes this one as the new Host
			checkHeaderName(c.key(h), h)
		}
		checkHeaderValue(c.key(h), m[h])
	}
}

// checkHeaderNames allows "*", which CORS knows.
func checkHeaderNames(c checker, headers []string) {
	for i, h := range headers {
		checkHeaderName(c.index(i), h)
	}
}
