// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

func TestMain(m *testing.M) {
	code := m.Run()
	fmt.Println(netlab.Tally())
	os.Exit(code)
}

// TestCases runs every case in testdata.
func TestCases(t *testing.T) {
	t.Parallel()
	runCases(t, map[string]string{})
}

// TestCasesOnDemand runs all of them with proxies that ask for clusters when they
// need them.
func TestCasesOnDemand(t *testing.T) {
	t.Parallel()
	runCases(t, asking())
}

// runCases runs every case with this in the environment of its proxies.
func runCases(t *testing.T, environment map[string]string) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".yaml"), func(t *testing.T) {
			t.Parallel()
			netlab.Run(t, f, environment)
		})
	}
}

// TestCasesWithWholeTables runs some of them with proxies that do not take virtual
// hosts one by one.
func TestCasesWithWholeTables(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"http-routes", "service-entries", "sidecars"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			netlab.Run(t, filepath.Join("testdata", name+".yaml"), map[string]string{"ISTIO_META_ISTHMUS_DISCOVERY": "Tables"})
		})
	}
}

// TestCasesWithTheStateOfTheWorld runs some of them with proxies that are told all that
// there is whenever something changes.
func TestCasesWithTheStateOfTheWorld(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"http-routes", "destination-rules", "service-entries", "peer-authentication"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			netlab.Run(t, filepath.Join("testdata", name+".yaml"), map[string]string{"ISTIO_DELTA_XDS": "false"})
		})
	}
}
