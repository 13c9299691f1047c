// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/v1"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/image"
)

const head = "FROM golang AS build\nRUN make\nFROM gcr.io/distroless/static-debian12:nonroot AS app\n"

func TestImage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, f := range []string{"app", "data/a.txt", "data/sub/b.txt"} {
		path := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := func(dest, source string, mode int64) image.File {
		return image.File{Path: dest, Source: filepath.Join(dir, source), Mode: mode}
	}
	cases := map[string]struct {
		text      string
		wantFiles []image.File
		want      v1.Config
		wantError string
	}{
		"a program of another stage": {
			text:      "COPY --from=build /out/app /usr/local/bin/app\nUSER 1337:1337\nENTRYPOINT [\"/usr/local/bin/app\", \"serve\"]\n",
			wantFiles: []image.File{file("/usr/local/bin/app", "app", 0o644)},
			want:      v1.Config{User: "1337:1337", Entrypoint: []string{"/usr/local/bin/app", "serve"}},
		},
		"a directory of the context, below the working directory": {
			text:      "WORKDIR /srv\nENV A=b C=\"d e\"\nCOPY --chmod=0600 data ./x\nCMD [\"run\"]\n",
			wantFiles: []image.File{file("/srv/x/a.txt", "data/a.txt", 0o600), file("/srv/x/sub/b.txt", "data/sub/b.txt", 0o600)},
			want:      v1.Config{User: nonroot, WorkingDir: "/srv", Env: []string{"A=b", "C=d e"}, Cmd: []string{"run"}},
		},
		"a file into a directory": {
			text:      "COPY app /opt/\n",
			wantFiles: []image.File{file("/opt/app", "app", 0o644)},
			want:      v1.Config{User: nonroot},
		},
		"something has to be run":    {text: "USER 1\nRUN true\n", wantError: "line 5: RUN: not supported"},
		"a shell would be needed":    {text: "ENTRYPOINT app\n", wantError: "line 4: ENTRYPOINT: not supported without brackets"},
		"a file is not there":        {text: "COPY --from=build /out/none /none\n", wantError: "line 4: COPY: /out/none is taken from"},
		"a variable without a value": {text: "USER $NOBODY\n", wantError: "line 4: USER: $NOBODY: variables without"},
		"a variable of the stage": {
			text: "ENV U=9\nUSER $U\n",
			want: v1.Config{User: "9", Env: []string{"U=9"}},
		},
		"chown is asked for": {text: "COPY --chown=1 app /app\n", wantError: "line 4: COPY: here-documents, --chown"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Image(strings.NewReader(head+c.text), Options{Target: "app", Context: dir, Bin: dir})
			if c.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantError) {
					t.Fatalf("got error %v, want one with %q", err, c.wantError)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got.Files = got.Files[3:] // those of the base, see the test below
			if d := cmp.Diff(c.wantFiles, got.Files, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("files (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.want, got.Config, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("configuration (-want +got):\n%s", d)
			}
		})
	}
}

func TestLibrariesFollowTheBase(t *testing.T) {
	t.Parallel()
	const program = "/bin/ls"
	if _, err := os.Stat(program); err != nil {
		t.Skip("skipped: no dynamic program at " + program)
	}
	text := func(base string) *strings.Reader {
		return strings.NewReader("FROM " + base + " AS app\nCOPY --from=other /out/ls /ls\n")
	}
	options := Options{Target: "app", Bin: "/bin"}
	got, err := Image(text("gcr.io/distroless/cc-debian12"), options)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range got.Files {
		found[filepath.Base(f.Path)] = true
	}
	for _, want := range []string{"passwd", "ls", "libc.so.6"} {
		if !found[want] {
			t.Errorf("%s is not in the image", want)
		}
	}
	for _, base := range []string{"scratch", "gcr.io/distroless/static-debian12"} {
		if _, err := Image(text(base), options); err == nil || !strings.Contains(err.Error(), "base image "+base+" has none") {
			t.Errorf("on %s: got error %v", base, err)
		}
	}
}

func FuzzImageNeverPanics(f *testing.F) {
	f.Add(head + "COPY --from=build /out/app /app\n")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = Image(strings.NewReader(text), Options{Target: "app", Context: "/nonexistent", Bin: "/nonexistent"})
	})
}
