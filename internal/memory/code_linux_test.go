// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestCodeIsReadOnlyAndAsItIsInTheFile(t *testing.T) {
	const smaps = `00400000-01000000 r-xp 00000000 00:1b 42                         /bin/program
Rss:                2048 kB
Anonymous:             0 kB
01000000-01200000 r--p 00c00000 00:1b 42                         /bin/program
Anonymous:            12 kB
01200000-01300000 r--p 00e00000 00:1b 42                         /bin/program
Anonymous:             0 kB
01300000-01400000 rw-p 00f00000 00:1b 42                         /bin/program
Anonymous:             0 kB
7f0000000000-7f0000100000 r-xp 00000000 00:1b 43                 /lib/other
Anonymous:             0 kB
7f0000200000-7f0000300000 rw-p 00000000 00:00 0
Anonymous:             0 kB
`
	got := codeOf("/bin/program", strings.NewReader(smaps))
	want := []mapping{{0x400000, 0x1000000}, {0x1200000, 0x1300000}}
	if !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestForgottenCodeStillRuns(t *testing.T) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(codeOf(self, f)) == 0 {
		t.Error("found none of this program's code")
	}
	if err := forgetCode(); err != nil {
		t.Fatal(err)
	}
}
