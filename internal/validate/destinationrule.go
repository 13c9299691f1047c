// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func checkDestinationRule(c checker, d *networking.DestinationRule) {
	if fault := wildcardFault(d.Host); fault != "" {
		c.at("host").refuse(fault, rightWildcard)
	}
	checkTrafficPolicy(c.at("trafficPolicy"), d.TrafficPolicy)
	names := map[string]bool{}
	for i, s := range d.Subsets {
		at := c.at("subsets").index(i)
		if !subsetName.MatchString(s.GetName()) {
			at.at("name").refuse(quote(s.GetName())+" is not the name of a subset", "use letters, digits and dashes")
		}
		if names[s.GetName()] {
			at.at("name").refuse(quote(s.GetName())+" is used by an earlier subset", "use names that differ")
		}
		names[s.GetName()] = true
		if len(s.GetLabels()) == 0 && s.GetTrafficPolicy() == nil {
			at.warn("it has neither labels nor a policy, so it is the whole service", "add labels")
		}
		checkLabels(at.at("labels"), s.GetLabels())
		checkTrafficPolicy(at.at("trafficPolicy"), s.GetTrafficPolicy())
	}
	checkExportTo(c.at("exportTo"), d.ExportTo)
	checkLabels(c.at("workloadSelector").at("matchLabels"), d.WorkloadSelector.GetMatchLabels())
}

// warnCredentials tells a tenant which proxies do not get what credentialName names.
func warnCredentials(c checker, d *networking.DestinationRule) {
	warn := func(c checker, t *networking.ClientTLSSettings) {
		if t.GetCredentialName() != "" {
			c.at("tls").at("credentialName").warn("sidecars read no Secrets, and the egress gateway none of this namespace",
				"mount the files, and set clientCertificate, privateKey and caCertificates; or have the rule in the mesh's root namespace")
		}
	}
	policy := func(c checker, t *networking.TrafficPolicy) {
		warn(c, t.GetTls())
		for i, p := range t.GetPortLevelSettings() {
			warn(c.at("portLevelSettings").index(i), p.GetTls())
		}
	}
	policy(c.at("trafficPolicy"), d.TrafficPolicy)
	for i, s := range d.Subsets {
		policy(c.at("subsets").index(i).at("trafficPolicy"), s.GetTrafficPolicy())
	}
}

// policy is what a traffic policy and one for a port have in common.
type policy struct {
	balancer *networking.LoadBalancerSettings
	pool     *networking.ConnectionPoolSettings
	outlier  *networking.OutlierDetection
	tls      *networking.ClientTLSSettings
}

func checkTrafficPolicy(c checker, t *networking.TrafficPolicy) {
	if t == nil {
		return
	}
	checkPolicy(c, policy{t.LoadBalancer, t.ConnectionPool, t.OutlierDetection, t.Tls})
	ports := map[uint32]bool{}
	for i, p := range t.PortLevelSettings {
		at := c.at("portLevelSettings").index(i)
		if p.GetPort() == nil {
			at.at("port").refuse("it is missing", "use the number of a port of the service")
			continue
		}
		n := p.Port.Number
		checkPort(at.at("port").at("number"), n)
		if ports[n] {
			at.at("port").at("number").refuse(fmt.Sprintf("%d is used by earlier settings", n), "join the two")
		}
		ports[n] = true
		checkPolicy(at, policy{p.LoadBalancer, p.ConnectionPool, p.OutlierDetection, p.Tls})
	}
	checkTunnel(c.at("tunnel"), t.Tunnel)
	if b := t.RetryBudget; b != nil {
		if b.Percent != nil {
			checkPercentage(c.at("retryBudget").at("percent"), b.Percent.Value)
		}
		checkDuration(c.at("retryBudget").at("budgetInterval"), b.BudgetInterval)
	}
}

func checkPolicy(c checker, p policy) {
	checkBalancer(c.at("loadBalancer"), p.balancer, p.outlier)
	checkPool(c.at("connectionPool"), p.pool)
	checkOutlier(c.at("outlierDetection"), p.outlier)
	checkClientTLS(c.at("tls"), p.tls)
}

func checkTunnel(c checker, t *networking.TrafficPolicy_TunnelSettings) {
	if t == nil {
		return
	}
	if p := strings.ToUpper(t.Protocol); p != "" && p != "CONNECT" && p != "POST" {
		c.at("protocol").refuse(quote(t.Protocol)+" makes no tunnel", "use CONNECT or POST")
	}
	if fault := hostFault(t.TargetHost); fault != "" && addressFault(t.TargetHost) != "" {
		c.at("targetHost").refuse(fault, rightHost)
	}
	checkPort(c.at("targetPort"), t.TargetPort)
}

func checkPool(c checker, p *networking.ConnectionPoolSettings) {
	if t := p.GetTcp(); t != nil {
		at := c.at("tcp")
		checkNotNegative(at.at("maxConnections"), t.MaxConnections)
		checkDuration(at.at("connectTimeout"), t.ConnectTimeout)
		checkTimeout(at.at("maxConnectionDuration"), t.MaxConnectionDuration)
		checkTimeout(at.at("idleTimeout"), t.IdleTimeout)
		checkDuration(at.at("tcpKeepalive").at("time"), t.TcpKeepalive.GetTime())
		checkDuration(at.at("tcpKeepalive").at("interval"), t.TcpKeepalive.GetInterval())
	}
	h := p.GetHttp()
	if h == nil {
		return
	}
	at := c.at("http")
	checkNotNegative(at.at("http1MaxPendingRequests"), h.Http1MaxPendingRequests)
	checkNotNegative(at.at("http2MaxRequests"), h.Http2MaxRequests)
	checkNotNegative(at.at("maxRequestsPerConnection"), h.MaxRequestsPerConnection)
	checkNotNegative(at.at("maxRetries"), h.MaxRetries)
	checkNotNegative(at.at("maxConcurrentStreams"), h.MaxConcurrentStreams)
	checkTimeout(at.at("idleTimeout"), h.IdleTimeout)
	checkDuration(at.at("http2KeepAlive").at("interval"), h.Http2KeepAlive.GetInterval())
	checkDuration(at.at("http2KeepAlive").at("timeout"), h.Http2KeepAlive.GetTimeout())
	if h.UseClientProtocol && h.H2UpgradePolicy == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE {
		at.at("useClientProtocol").refuse("h2UpgradePolicy UPGRADE decides the protocol", "use one of the two")
	}
}

func checkNotNegative(c checker, n int32) {
	if n < 0 {
		c.refuse(fmt.Sprintf("%d is below 0", n), "use 0 or more")
	}
}

func checkOutlier(c checker, o *networking.OutlierDetection) {
	if o == nil {
		return
	}
	checkDuration(c.at("interval"), o.Interval)
	checkDuration(c.at("baseEjectionTime"), o.BaseEjectionTime)
	checkPercentage(c.at("maxEjectionPercent"), float64(o.MaxEjectionPercent))
	checkPercentage(c.at("minHealthPercent"), float64(o.MinHealthPercent))
	if o.ConsecutiveErrors != 0 { //nolint:staticcheck // deprecated, and that is what we tell
		c.at("consecutiveErrors").warn("it is deprecated", "use consecutive5xxErrors or consecutiveGatewayErrors")
	}
	if o.ConsecutiveLocalOriginFailures.GetValue() > 0 && !o.SplitExternalLocalOriginErrors {
		c.at("consecutiveLocalOriginFailures").refuse("it needs splitExternalLocalOriginErrors", "set splitExternalLocalOriginErrors: true")
	}
}

func checkClientTLS(c checker, t *networking.ClientTLSSettings) {
	if t == nil {
		return
	}
	files := t.ClientCertificate != "" || t.PrivateKey != ""
	switch t.Mode {
	case networking.ClientTLSSettings_MUTUAL:
		if t.CredentialName == "" && (t.ClientCertificate == "" || t.PrivateKey == "") {
			c.refuse("mode MUTUAL needs a client certificate with its key", "set credentialName, or clientCertificate and privateKey")
		}
	case networking.ClientTLSSettings_ISTIO_MUTUAL:
		if files || t.CaCertificates != "" || t.CredentialName != "" {
			c.refuse("mode ISTIO_MUTUAL uses the workload's own certificate", "remove certificates and credentialName, or use mode MUTUAL")
		}
	case networking.ClientTLSSettings_SIMPLE:
		if files {
			c.at("clientCertificate").warn("mode SIMPLE shows no client certificate", "use mode MUTUAL, or remove it")
		}
	case networking.ClientTLSSettings_DISABLE:
		if files || t.CaCertificates != "" || t.CredentialName != "" || t.Sni != "" || len(t.SubjectAltNames) > 0 {
			c.warn("mode DISABLE makes no use of anything else", "remove the rest, or choose another mode")
		}
	}
	if t.CredentialName != "" && (files || t.CaCertificates != "") {
		c.at("credentialName").refuse("certificate files are set too", "use one of the two")
	}
	if t.InsecureSkipVerify.GetValue() && (t.CaCertificates != "" || len(t.SubjectAltNames) > 0) {
		c.at("insecureSkipVerify").refuse("nothing is verified, so caCertificates and subjectAltNames have no effect", "remove one of them")
	}
	for i, n := range t.SubjectAltNames {
		if n == "" {
			c.at("subjectAltNames").index(i).refuse("it must not be empty", "")
		}
	}
	if t.Sni != "" && hostFault(t.Sni) != "" {
		c.at("sni").refuse(hostFault(t.Sni), rightHost)
	}
}
