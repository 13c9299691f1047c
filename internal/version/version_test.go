// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package version

import (
	"runtime/debug"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestRevision(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ topology, version, want string }{
		"release":       {"default", "0.1.0", "default-0-1-0"},
		"pre-release":   {"payments", "1.2.0-RC.1", "payments-1-2-0-rc-1"},
		"with metadata": {"a", "1.2.0+build.5", "a-1-2-0-build-5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := Revision(tc.topology, tc.version)
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if errs := validation.IsDNS1123Label(got); errs != nil {
				t.Errorf("%q cannot name objects: %v", got, errs)
			}
		})
	}
}

func TestCurrentIsSupported(t *testing.T) {
	t.Parallel()
	if !slices.Contains(Supported(), Current) {
		t.Errorf("%q is not in %v", Current, Supported())
	}
	if got := Build().Version; got != Current {
		t.Errorf("build says %q", got)
	}
}

func TestInfoNamesCommitAndDirt(t *testing.T) {
	t.Parallel()
	setting := func(k, v string) debug.BuildSetting { return debug.BuildSetting{Key: k, Value: v} }
	for name, tc := range map[string]struct {
		settings []debug.BuildSetting
		want     string
	}{
		"clean":               {[]debug.BuildSetting{setting("vcs.revision", "abc"), setting("vcs.modified", "false")}, "0.1.0 (abc) go1"},
		"changed":             {[]debug.BuildSetting{setting("vcs.revision", "abc"), setting("vcs.modified", "true")}, "0.1.0 (abc-dirty) go1"},
		"not from a checkout": {nil, "0.1.0 go1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := infoOf(&debug.BuildInfo{GoVersion: "go1", Settings: tc.settings}).String()
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
