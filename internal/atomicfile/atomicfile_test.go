package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	put(t, filepath.Join(dir, ".f.tmp"), "left by a cut, and longer than what comes")
	for _, text := range []string{"old", "newer", ""} {
		if err := Write(path, []byte(text), 0o646); err != nil { // no usual umask leaves these
			t.Fatal(err)
		}
		if got := content(t, path); got != text {
			t.Errorf("content = %q, want %q", got, text)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o646 {
			t.Errorf("mode = %v, want 0646", info.Mode())
		}
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the directory holds %q, want the file alone", got)
	}
}

func TestWriteRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := Write("f", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := content(t, "f"); got != "x" {
		t.Errorf("content = %q, want %q", got, "x")
	}
}

// TestWriteLinks puts links where Write has its names: what they point to
// must stay as it is.
func TestWriteLinks(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	put(t, victim, "untouched")
	path := filepath.Join(dir, "f")
	for _, link := range []string{path, filepath.Join(dir, ".f.tmp")} {
		if err := os.Symlink("victim", link); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := content(t, victim); got != "untouched" {
		t.Errorf("the link's target = %q", got)
	}
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		t.Errorf("Lstat = %v, %v, want a regular file", info, err)
	}
}

// TestWriteError renames onto a directory, which fails.
func TestWriteError(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o600); err == nil {
		t.Fatal("Write onto a directory succeeded")
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the directory holds %q: the temporary file is left", got)
	}
	if err := Write(filepath.Join(dir, "absent", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write into an absent directory: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, line := range []string{"one", "two"} {
		if err := Append(path, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("to") // torn
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	line := []byte("three")
	if err := Append(path, line, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := content(t, path), "one\ntwo\nto\nthree\n"; got != want {
		t.Errorf("log = %q, want %q", got, want)
	}
	link := path + ".link"
	if err := os.Symlink("log", link); err != nil {
		t.Fatal(err)
	}
	if err := Append(link, []byte("x"), 0o600); err == nil {
		t.Error("Append followed a symbolic link")
	}
}
