// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command policygate is a CNI plugin, chained last, that lets a pod's sandbox be
// ready only when its NetworkPolicies stand.
package main

import (
	"encoding/json"
	"fmt"

	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/gate"
)

const timeout = 15 * time.Second

func main() {
	nothing := func(*skel.CmdArgs) error { return nil }
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: nothing, Check: nothing}, version.PluginSupports("1.0.0"), "policygate")
}

func add(a *skel.CmdArgs) error {
	conf := types.NetConf{}
	if err := json.Unmarshal(a.StdinData, &conf); err != nil {
		return fmt.Errorf("parse configuration: %w", err)
	}
	if err := version.ParsePrevResult(&conf); err != nil {
		return fmt.Errorf("parse previous result: %w", err)
	}
	if conf.PrevResult == nil {
		return fmt.Errorf("policygate has to be chained after the plugin that gives addresses")
	}
	result, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return fmt.Errorf("convert previous result: %w", err)
	}
	pod := arguments(a.Args)
	r := gate.Request{Namespace: pod["K8S_POD_NAMESPACE"], Name: pod["K8S_POD_NAME"], UID: pod["K8S_POD_UID"]}
	for _, ip := range result.IPs {
		r.IPs = append(r.IPs, ip.Address.IP.String())
	}
	if err := gate.Ask(r, timeout); err != nil {
		return fmt.Errorf("wait for the policies of %s/%s: %w", r.Namespace, r.Name, err)
	}
	return types.PrintResult(conf.PrevResult, conf.CNIVersion)
}

// arguments splits CNI_ARGS: KEY=VALUE;KEY=VALUE.
func arguments(s string) map[string]string {
	m := map[string]string{}
	for kv := range strings.SplitSeq(s, ";") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			m[k] = v
		}
	}
	return m
}
