// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/image"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/sharedlib"
)

// tags are the names by which the suite of this version of Kubernetes asks for
// images: agnhost, which plays nearly everything, and what it can play as well.
func tags() []string {
	return []string{
		"registry.k8s.io/e2e-test-images/agnhost:2.63.0",
		"registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0",
		"registry.k8s.io/pause:3.10.2",
	}
}

// tools are what cases call inside the image besides agnhost itself, by the Debian
// package that has them.
func tools() map[string][]string {
	return map[string][]string{
		"dash": {"sh"}, "curl": {"curl"}, "wget": {"wget"}, "netcat-openbsd": {"nc"}, "bind9-dnsutils": {"dig", "nslookup"},
		"libc-bin": {"getent"}, "iproute2": {"ip", "ss"}, "hostname": {"hostname"}, "grep": {"grep"},
		"coreutils": {
			"cat", "cut", "date", "dd", "env", "head", "id", "ls", "mkdir", "rm", "seq", "sleep", "sort", "tail", "timeout", "tr",
			"uniq", "wc",
		},
	}
}

// Archive writes an archive of the image that the suite's cases need, with the
// program agnhost in it, and if the suite calls any tools, this machine's and the
// cluster's DNS server.
func (s Suite) Archive(agnhost, coredns, out string) error {
	i := image.Image{
		Tags: tags(),
		Files: []image.File{
			{Path: "/agnhost", Source: agnhost},
			{Path: "/etc/nsswitch.conf", Content: "hosts: files dns\n", Mode: 0o644},
			{Path: "/etc/passwd", Content: "root:x:0:0:root:/:/bin/sh\n", Mode: 0o644},
		},
		Config: v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}},
	}
	if s.tools {
		files, err := programs(tools())
		if err != nil {
			return err
		}
		i.Files = append(append(i.Files, files...), image.File{Path: "/coredns", Source: coredns})
	}
	return image.Write(out, i) //nolint:wrapcheck // says all
}

// programs finds the programs and the libraries that they load, or says which
// packages are missing.
func programs(byPackage map[string][]string) ([]image.File, error) {
	var files []image.File
	var missing []string
	for _, pkg := range slices.Sorted(maps.Keys(byPackage)) {
		for _, name := range byPackage[pkg] {
			path, err := exec.LookPath(name)
			if err != nil {
				missing = append(missing, pkg)
				continue
			}
			libraries, err := sharedlib.Of(path)
			if err != nil {
				return nil, err //nolint:wrapcheck // says all
			}
			files = append(files, image.File{Path: "/bin/" + name, Source: path})
			for _, l := range libraries {
				files = append(files, image.File{Path: l.Path, Source: l.Source})
			}
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("the cases need tools in their image: install the packages %s", strings.Join(slices.Compact(missing), " "))
	}
	return files, nil
}
