// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func waitCommand() *cobra.Command {
	var (
		timeout, period time.Duration
		url             string
	)
	c := &cobra.Command{
		Use:   "wait",
		Short: "wait until the proxy is ready",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			return waitReady(ctx, url, period)
		},
	}
	f := c.Flags()
	f.DurationVar(&timeout, "timeout", time.Minute, "how long to wait at most")
	f.DurationVar(&period, "period", 200*time.Millisecond, "how often to ask")
	f.StringVar(&url, "url", "http://127.0.0.1:15021/healthz/ready", "what to ask")
	return c
}

func waitReady(ctx context.Context, url string, period time.Duration) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		err := askReady(ctx, url)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the proxy did not become ready: %w", err)
		case <-tick.C:
		}
	}
}

func askReady(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	return nil
}
