// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"
	"k8s.io/apimachinery/pkg/util/validation"
)

// protocols that ports may declare; the empty one is detected on the wire.
func protocols() []string {
	return []string{"HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TCP", "TLS", "UDP", "MONGO", "MYSQL", "REDIS", "HTTP_PROXY"}
}

func checkProtocol(c checker, protocol string) {
	if protocol != "" && !slices.Contains(protocols(), strings.ToUpper(protocol)) {
		c.refuse(quote(protocol)+" is not a protocol", "use one of "+strings.Join(protocols(), ", "))
	}
}

func isHTTP(protocol string) bool {
	return slices.Contains([]string{"HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"}, strings.ToUpper(protocol))
}

func isTLS(protocol string) bool {
	return slices.Contains([]string{"HTTPS", "TLS"}, strings.ToUpper(protocol))
}

const rightPort = "use a number from 1 to 65535"

func checkPort(c checker, n uint32) {
	if n < 1 || n > 65535 {
		c.refuse(fmt.Sprintf("%d is not a port", n), rightPort)
	}
}

// checkSelector checks the port of a destination, which may be absent.
func checkSelector(c checker, p *networking.PortSelector) {
	if p != nil {
		checkPort(c.at("number"), p.Number)
	}
}

// checkDuration wants at least a millisecond, or a whole number of them.
func checkDuration(c checker, d *durationpb.Duration) {
	if d == nil {
		return
	}
	if d.CheckValid() != nil || d.AsDuration() < time.Millisecond {
		c.refuse(fmt.Sprintf("%s is too short", d.AsDuration()), "use a duration of 1ms or more, such as 5s")
	}
}

// checkTimeout is checkDuration where 0 switches the limit off.
func checkTimeout(c checker, d *durationpb.Duration) {
	if d == nil || d.CheckValid() == nil && d.AsDuration() == 0 {
		return
	}
	checkDuration(c, d)
}

func checkPercent(c checker, p *networking.Percent) {
	if p != nil {
		checkPercentage(c.at("value"), p.Value)
	}
}

// checkPercentage also catches what is not a number.
func checkPercentage(c checker, v float64) {
	if !(v >= 0 && v <= 100) {
		c.refuse(fmt.Sprintf("%v is not a percentage", v), "use a number from 0 to 100")
	}
}

// maxRegex bounds expressions: proxies refuse programs that grow too big.
const maxRegex = 1024

func checkRegex(c checker, expression string) {
	if expression == "" {
		c.refuse("an empty expression matches everything", "leave the match out, or use an expression")
		return
	}
	if len(expression) > maxRegex {
		c.refuse(fmt.Sprintf("an expression of %d bytes is too long", len(expression)), fmt.Sprintf("use at most %d", maxRegex))
		return
	}
	if _, err := regexp.Compile(expression); err != nil {
		c.refuse(quote(expression)+" is not a regular expression: "+err.Error(), "use RE2 syntax")
	}
}

// checkLabels wants labels that a workload can have.
func checkLabels(c checker, labels map[string]string) {
	for _, k := range sortedKeys(labels) {
		if errs := validation.IsQualifiedName(k); len(errs) > 0 {
			c.key(k).refuse(quote(k)+" is not a label key: "+errs[0], "")
		}
		if strings.Contains(labels[k], "*") {
			c.key(k).refuse("wildcards do not work in labels", "use the whole value")
			continue
		}
		if errs := validation.IsValidLabelValue(labels[k]); len(errs) > 0 {
			c.key(k).refuse(quote(labels[k])+" is not a label value: "+errs[0], "")
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// headerName is an HTTP token.
var headerName = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")

func checkHeaderName(c checker, h string) {
	switch {
	case h == "":
		c.refuse("the name of a header must not be empty", "")
	case strings.HasPrefix(h, ":"):
		c.refuse(quote(h)+" is a pseudo header and cannot be changed or matched here", "use authority, method, scheme or uri instead")
	case !headerName.MatchString(h):
		c.refuse(quote(h)+" is not the name of a header", "use letters, digits and dashes")
	}
}

// command is one of Envoy's formatter commands, such as %REQ(X-ID)% or %PROTOCOL%.
var command = regexp.MustCompile(`%[A-Z0-9_]+(\(.*?\))?(:[0-9]+)?%`)

// checkHeaderValue finds what Envoy would refuse later, for the whole route table.
func checkHeaderValue(c checker, v string) {
	if strings.ContainsAny(v, "\r\n\x00") {
		c.refuse("the value of a header must be one line", "")
	}
	rest := command.ReplaceAllString(strings.ReplaceAll(v, "%%", ""), "")
	if strings.Contains(rest, "%") {
		c.refuse(quote(v)+" has a single percent sign", "double it, or use a command such as %PROTOCOL%")
	}
}
