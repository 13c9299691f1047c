// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command conformance is the part of Kubernetes' own end-to-end suite that is
// about networks, as a program: it lists the cases, or runs those of a file and
// tells of each how it ended. All other flags are the suite's.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"k8s.io/component-base/logs"
	_ "k8s.io/kubernetes/test/e2e" // what the suite does before and after its cases
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	_ "k8s.io/kubernetes/test/e2e/framework/debug/init"
	_ "k8s.io/kubernetes/test/e2e/framework/metrics/init"
	_ "k8s.io/kubernetes/test/e2e/framework/node/init"
	_ "k8s.io/kubernetes/test/e2e/network"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/verdict"
)

// suiteName precedes each case's name in what the cases are chosen by.
const suiteName = "Kubernetes"

func main() {
	list := flag.Bool("list", false, "print the names of all cases")
	cases := flag.String("cases", "", "file with the names of the cases to run, one a line")
	events := flag.String("events", "", "file to write how each case ended to, one JSON object a line")
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	if *list {
		for _, r := range ginkgo.PreviewSpecs(suiteName).SpecReports.WithLeafNodeType(types.NodeTypeIt) {
			fmt.Println(r.FullText())
		}
		return
	}
	ok, err := run(*cases, *events)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(cases, events string) (bool, error) {
	only, err := focus(cases)
	if err != nil {
		return false, err
	}
	out, err := os.OpenFile(events, os.O_WRONLY, 0)
	if err != nil {
		return false, fmt.Errorf("open file for events: %w", err)
	}
	defer out.Close()
	framework.AfterReadingAllFlags(&framework.TestContext)
	logs.InitLogs()
	gomega.RegisterFailHandler(framework.Fail)
	ginkgo.ReportAfterEach(func(r ginkgo.SpecReport) { tell(out, r) })
	suite, reporter := framework.CreateGinkgoConfig()
	suite.FocusStrings, suite.SkipStrings = only, nil
	suite.RandomizeAllSpecs = false
	reporter.NoColor, reporter.Succinct = true, true
	var failures failures
	ginkgo.RunSpecs(&failures, suiteName, suite, reporter)
	return failures == 0, nil
}

// focus makes patterns of the names in the file.
func focus(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	var patterns []string
	for name := range strings.Lines(string(b)) {
		patterns = append(patterns, "^"+regexp.QuoteMeta(suiteName+" "+strings.TrimSpace(name))+"$")
	}
	return patterns, nil
}

// tell writes how a case ended, unless it was not among those to run.
func tell(w io.Writer, r ginkgo.SpecReport) {
	if r.State == types.SpecStateSkipped && r.Failure.Message == "" {
		return
	}
	v := verdict.Verdict{Case: r.FullText(), State: r.State.String(), Seconds: r.RunTime.Seconds(), Why: r.Failure.Message}
	if r.Failed() {
		v.Output = r.CapturedGinkgoWriterOutput
	}
	if err := json.NewEncoder(w).Encode(v); err != nil {
		ginkgo.Fail(fmt.Sprintf("tell how %s ended: %v", v.Case, err))
	}
}

// failures takes the place of a testing.T.
type failures int

// Fail is called if a case fails.
func (f *failures) Fail() { *f++ }
