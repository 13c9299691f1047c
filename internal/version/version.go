// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package version says what this build is, and how revisions are named after
// versions.
package version

import (
	"runtime/debug"
	"strings"
)

// Current is the version of this source: of operator, control plane and proxy
// image alike. It is what a topology without spec.version gets.
const Current = "0.1.0"

// buildVersion is set by the linker when a build has a version of its own, such as
// that of a commit after a release.
var buildVersion = Current

// Supported lists the versions of the control plane that this operator can run,
// newest first.
func Supported() []string { return []string{Current} }

// Revision names a version of a topology: "default" and "0.1.0" make
// "default-0-1-0". Every object that exists once per version ends in it, and
// injected pods record it.
func Revision(topology, version string) string {
	return topology + "-" + strings.NewReplacer(".", "-", "+", "-").Replace(strings.ToLower(version))
}

// Info describes a build.
type Info struct {
	// Version of the build; Current unless the linker says otherwise.
	Version string `json:"version"`
	// Commit is the source's, with "-dirty" if it was changed; "" if unknown.
	Commit string `json:"commit,omitempty"`
	// Go is the toolchain's version.
	Go string `json:"go"`
}

// Build describes the running binary by what the toolchain recorded in it.
func Build() Info {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return Info{Version: buildVersion}
	}
	return infoOf(b)
}

func infoOf(b *debug.BuildInfo) Info {
	info := Info{Version: buildVersion, Go: b.GoVersion}
	dirty := false
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && info.Commit != "" {
		info.Commit += "-dirty"
	}
	return info
}

// String is one line for people and logs.
func (i Info) String() string {
	s := i.Version
	if i.Commit != "" {
		s += " (" + i.Commit + ")"
	}
	if i.Go != "" {
		s += " " + i.Go
	}
	return s
}
