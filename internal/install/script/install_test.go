package script

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact"
)

// tree returns "mode content" for each name in dir.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = info.Mode().String() + " " + string(data)
	}
	return out
}

func TestInstall(t *testing.T) {
	// The units of the agent set this umask; the modes must not depend on it.
	old := unix.Umask(0o077)
	t.Cleanup(func() { unix.Umask(old) })
	dir := filepath.Join(t.TempDir(), "scripts")
	first := []artifact.Script{{Name: "ArtifactInstall_Enter_00", Data: []byte("one")}, {Name: "ArtifactCommit_Leave_99_last.sh"}}
	if err := Install(dir, 3, first); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"ArtifactInstall_Enter_00":        "-rwxr-xr-x one",
		"ArtifactCommit_Leave_99_last.sh": "-rwxr-xr-x ",
		"version":                         "-rw-r--r-- 3",
	}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("after Install (-want +got):\n%s", diff)
	}

	// The next artifact's scripts take the place of all that is there.
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "sub", "sub"), 0o700),
		os.Mkdir(outside, 0o700),
		os.WriteFile(filepath.Join(outside, "keep"), nil, 0o600),
		os.Symlink(outside, filepath.Join(dir, "link")),
		os.Symlink(filepath.Join(outside, "keep"), filepath.Join(dir, "ArtifactFailure_Enter_01")),
	); err != nil {
		t.Fatal(err)
	}
	if err := Install(dir, 2, []artifact.Script{{Name: "ArtifactFailure_Enter_01", Data: []byte("two")}}); err != nil {
		t.Fatal(err)
	}
	want = map[string]string{"ArtifactFailure_Enter_01": "-rwxr-xr-x two", "version": "-rw-r--r-- 2"}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("after the second Install (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(outside, "keep")); err != nil || info.Size() != 0 {
		t.Errorf("Install followed a link: %v", err)
	}

	if err := Install(dir, 3, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{}, tree(t, dir)); diff != "" {
		t.Errorf("after Install of nothing (-want +got):\n%s", diff)
	}
}

func TestInstallRefuses(t *testing.T) {
	tests := []struct {
		name    string
		version int
		scripts []string
		want    string
	}{
		{"path", 3, []string{"../ArtifactInstall_Enter_00"}, "not the name"},
		{"path in the description", 3, []string{"ArtifactInstall_Enter_00_/../../x"}, "not the name"},
		{"white space", 3, []string{"ArtifactInstall_Enter_00_a\u00a0b"}, "not the name"},
		{"not UTF-8", 3, []string{"ArtifactInstall_Enter_00_\xe4"}, "not the name"},
		{"line end", 3, []string{"ArtifactInstall_Enter_00\n"}, "not the name"},
		{"state of the root file system", 3, []string{"Download_Enter_00"}, "not the name"},
		{"one digit", 3, []string{"ArtifactInstall_Enter_0"}, "not the name"},
		{"suffix", 3, []string{"ArtifactInstall_Enter_00.sh"}, "not the name"},
		{"empty description", 3, []string{"ArtifactInstall_Enter_00_"}, "not the name"},
		{"twice", 3, []string{"ArtifactInstall_Enter_00", "ArtifactInstall_Enter_00"}, "twice"},
		{"format version", 1, []string{"ArtifactInstall_Enter_00"}, "version 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := scripts(t, map[string]string{"ArtifactCommit_Enter_00": "old"})
			before := tree(t, dir)
			var in []artifact.Script
			for _, name := range tt.scripts {
				in = append(in, artifact.Script{Name: name})
			}
			err := Install(dir, tt.version, in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Install: error %v, want %q", err, tt.want)
			}
			if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
				t.Errorf("Install changed the directory (-before +after):\n%s", diff)
			}
		})
	}
}

// TestInstallAnyDescription: a script with each kind of name that an artifact
// may bring is run.
func TestInstallAnyDescription(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "scripts")
	var in []artifact.Script
	var want []string
	for i, text := range []string{"x~", "a(b)", "a@b", "a:b", "a=b", "#1", "ä", "$(id)", "..", "_"} {
		name := fmt.Sprintf("ArtifactInstall_Enter_%02d_%s", i, text)
		in, want = append(in, artifact.Script{Name: name, Data: []byte("#!/bin/sh\n")}), append(want, name)
	}
	if err := Install(dir, 3, in); err != nil {
		t.Fatal(err)
	}
	got, err := (&Runner{}).list(dir, "ArtifactInstall", "Enter")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("scripts to run (-want +got):\n%s%v", diff, err)
	}
}

func TestInstallNeedsDataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not-mounted", "scripts")
	if err := Install(dir, 3, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Install: error %v, want that the parent does not exist", err)
	}
}

// TestInstallBehindALink: what has the directory's place and is none goes; what a
// link points to stays.
func TestInstallBehindALink(t *testing.T) {
	other := scripts(t, map[string]string{"keep": "mine"})
	dir := filepath.Join(t.TempDir(), "scripts")
	for _, err := range []error{os.Symlink(other, dir), Clear(dir), Install(dir, 3, nil), os.Remove(dir), os.WriteFile(dir, nil, 0o600), Install(dir, 3, nil)} {
		if err != nil {
			t.Fatal(err)
		}
		if got := tree(t, other); len(got) != 1 {
			t.Fatalf("behind the link is %v", got)
		}
	}
}

func TestClear(t *testing.T) {
	dir := scripts(t, map[string]string{"ArtifactCommit_Enter_00": "", "version": "3"})
	if err := Clear(dir); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, dir); len(got) != 0 {
		t.Errorf("Clear left %v", got)
	}
	if err := Clear(filepath.Join(dir, "none")); err != nil {
		t.Errorf("Clear of a missing directory: %v", err)
	}
}
