// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetCode unmaps the pages of the program's own file. Most of a Go program is
// used once, when its packages set themselves up; what is used again is mapped
// again out of the page cache, at a fraction of a microsecond per 64 KiB.
func forgetCode() error {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find the program's file: %w", err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("find the program's pages: %w", err)
	}
	defer f.Close()
	for _, m := range codeOf(self, f) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("unmap the program's pages: %w", errno)
		}
	}
	return nil
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// codeOf finds, in the form of /proc/PID/smaps, where a file is mapped and nothing
// can be lost: read-only, and without a page that differs from the file, as
// relocations make them.
func codeOf(file string, smaps io.Reader) (out []mapping) {
	var m mapping
	ours := false
	for s := bufio.NewScanner(smaps); s.Scan(); {
		line := s.Text()
		var next mapping
		var access, offset, device, path string
		var inode uint64
		if n, _ := fmt.Sscanf(line, "%x-%x %s %s %s %d %s", &next.from, &next.to, &access, &offset, &device, &inode, &path); n >= 6 {
			m, ours = next, path == file && (access == "r-xp" || access == "r--p")
		} else if kib, ok := strings.CutPrefix(line, "Anonymous:"); ok && ours && strings.TrimSpace(kib) == "0 kB" {
			out = append(out, m)
		}
	}
	return out
}
