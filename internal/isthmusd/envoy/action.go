// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// hostAttempts is how often another endpoint is drawn for a retry, as in Istio.
const hostAttempts = 5

func (p *packer) retry(r *ir.Retry) *routev3.RetryPolicy {
	if r == nil {
		return nil
	}
	m := &routev3.RetryPolicy{
		RetryOn:              r.On,
		NumRetries:           u32(r.Attempts),
		PerTryTimeout:        optDuration(r.PerTry),
		RetriableStatusCodes: r.StatusCodes,
	}
	if r.BackOff > 0 {
		m.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(r.BackOff)}
	}
	for _, f := range r.Failures {
		m.RetriableHeaders = append(m.RetriableHeaders, headerMatcher(ir.NamedMatch{
			Name: ir.FailureHeader, Match: ir.StringMatch{Kind: ir.MatchExact, Value: f},
		}))
	}
	if !r.IgnorePrevious {
		m.HostSelectionRetryMaxAttempts = hostAttempts
		m.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: p.any(&previoushostsv3.PreviousHostsPredicate{}),
			},
		}}
	}
	return m
}

func redirect(r *ir.Redirect) *routev3.RedirectAction {
	m := &routev3.RedirectAction{HostRedirect: r.Host, PortRedirect: r.Port, ResponseCode: redirectCode(r.Code)}
	switch {
	case r.HTTPS:
		m.SchemeRewriteSpecifier = &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true}
	case r.Scheme != "":
		m.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	switch {
	case r.HasPrefix:
		m.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: r.Prefix}
	case r.Path != "":
		m.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.Path}
	}
	return m
}

func redirectCode(code uint32) routev3.RedirectAction_RedirectResponseCode {
	switch code {
	case 302:
		return routev3.RedirectAction_FOUND
	case 303:
		return routev3.RedirectAction_SEE_OTHER
	case 307:
		return routev3.RedirectAction_TEMPORARY_REDIRECT
	case 308:
		return routev3.RedirectAction_PERMANENT_REDIRECT
	}
	return routev3.RedirectAction_MOVED_PERMANENTLY
}

func direct(d *ir.Direct) *routev3.DirectResponseAction {
	m := &routev3.DirectResponseAction{Status: d.Status}
	if len(d.Body) > 0 {
		m.Body = inline(d.Body)
	}
	return m
}

func fault(f *ir.Fault) *faultv3.HTTPFault {
	m := &faultv3.HTTPFault{}
	if f.Delay > 0 {
		m.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(f.Delay)},
			Percentage:         share(f.DelayShare),
		}
	}
	switch {
	case f.AbortGRPC != nil:
		m.Abort = &faultv3.FaultAbort{
			ErrorType:  &faultv3.FaultAbort_GrpcStatus{GrpcStatus: *f.AbortGRPC},
			Percentage: share(f.AbortShare),
		}
	case f.AbortStatus > 0:
		m.Abort = &faultv3.FaultAbort{
			ErrorType:  &faultv3.FaultAbort_HttpStatus{HttpStatus: f.AbortStatus},
			Percentage: share(f.AbortShare),
		}
	}
	return m
}

func cors(c *ir.CORS) *corsv3.CorsPolicy {
	m := &corsv3.CorsPolicy{
		AllowMethods:  strings.Join(c.Methods, ","),
		AllowHeaders:  strings.Join(c.AllowHeaders, ","),
		ExposeHeaders: strings.Join(c.ExposeHeaders, ","),
		MaxAge:        c.MaxAge,
		FilterEnabled: &corev3.RuntimeFractionalPercent{
			DefaultValue: &typev3.FractionalPercent{Numerator: 100},
		},
	}
	for _, o := range c.Origins {
		m.AllowOriginStringMatch = append(m.AllowOriginStringMatch, stringMatcher(o))
	}
	if c.Credentials != nil {
		m.AllowCredentials = wrapperspb.Bool(*c.Credentials)
	}
	if c.ForwardUnmatched != nil {
		m.ForwardNotMatchingPreflights = wrapperspb.Bool(*c.ForwardUnmatched)
	}
	return m
}

// share is a fraction in millionths.
func share(n uint32) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: n, Denominator: typev3.FractionalPercent_MILLION}
}

func regexRewrite(pattern, substitution string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: regex(pattern), Substitution: substitution}
}
