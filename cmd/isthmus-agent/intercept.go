// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/internal/agent/intercept"
)

// interceptFlags are the flags as given; lists keep Istio's syntax.
type interceptFlags struct {
	config                         intercept.Config
	inbound, excludeInbound        string
	outbound, excludeOutboundPorts string
	includeRanges, excludeRanges   string
	exclude                        []string
	dryRun                         bool
}

func interceptCommand(log logr.Logger) *cobra.Command {
	f := &interceptFlags{config: intercept.Default()}
	c := &cobra.Command{
		Use:   "intercept",
		Short: "redirect the pod's TCP connections to the proxy, replacing earlier rules",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := f.parse()
			if err != nil {
				return err
			}
			plan := intercept.Rules(conf)
			if f.dryRun {
				_, err := fmt.Fprint(c.OutOrStdout(), plan)
				return err
			}
			if err := intercept.AddSource(); err != nil {
				return err
			}
			if err := intercept.Apply(plan); err != nil {
				return err
			}
			log.Info("intercepting", "inboundPort", conf.InboundPort, "outboundPort", conf.OutboundPort)
			return nil
		},
	}
	f.bind(c)
	return c
}

func (f *interceptFlags) bind(c *cobra.Command) {
	fs := c.Flags()
	fs.Uint32Var(&f.config.UID, "uid", f.config.UID, "user of the proxy, whose connections pass")
	fs.Uint32Var(&f.config.GID, "gid", f.config.GID, "group of the proxy, whose connections pass")
	fs.Uint16Var(&f.config.OutboundPort, "outbound-port", f.config.OutboundPort, "port of the proxy for outbound connections")
	fs.Uint16Var(&f.config.InboundPort, "inbound-port", f.config.InboundPort, "port of the proxy for inbound connections")
	fs.StringVar(&f.inbound, "inbound-ports", intercept.All, "ports to intercept: '*' or a list")
	fs.StringVar(&f.excludeInbound, "exclude-inbound-ports", "", "ports to leave alone when --inbound-ports is '*'")
	fs.StringVar(&f.outbound, "outbound-ports", "", "destination ports to intercept whatever the address: '*' or a list")
	fs.StringVar(&f.excludeOutboundPorts, "exclude-outbound-ports", "", "destination ports to leave alone")
	fs.StringVar(&f.includeRanges, "include-outbound-ranges", intercept.All, "destination CIDRs to intercept: '*' or a list")
	fs.StringVar(&f.excludeRanges, "exclude-outbound-ranges", "", "destination CIDRs to leave alone")
	fs.StringArrayVar(&f.exclude, "exclude-outbound", nil, "destination to leave alone on some ports, as CIDR:port,port; may be repeated")
	fs.StringSliceVar(&f.config.ExcludeInterfaces, "exclude-interfaces", nil, "network interfaces to leave alone")
	fs.BoolVar(&f.dryRun, "dry-run", false, "print the rules as nft reads them and change nothing")
}

func (f *interceptFlags) parse() (intercept.Config, error) {
	c := f.config
	var errs []error
	note := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	var err error
	c.Inbound, err = intercept.ParsePorts(f.inbound)
	note("inbound-ports", err)
	c.ExcludeInbound, err = intercept.ParsePortList(f.excludeInbound)
	note("exclude-inbound-ports", err)
	c.Outbound, err = intercept.ParsePorts(f.outbound)
	note("outbound-ports", err)
	c.ExcludeOutbound, err = intercept.ParsePortList(f.excludeOutboundPorts)
	note("exclude-outbound-ports", err)
	c.Include, err = intercept.ParseRanges(f.includeRanges)
	note("include-outbound-ranges", err)
	c.ExcludeRanges, err = intercept.ParseRangeList(f.excludeRanges)
	note("exclude-outbound-ranges", err)
	for _, s := range f.exclude {
		d, err := intercept.ParseDestination(s)
		note("exclude-outbound", err)
		c.Exclude = append(c.Exclude, d)
	}
	if err := errors.Join(errs...); err != nil {
		return intercept.Config{}, err
	}
	return c, c.Validate()
}
