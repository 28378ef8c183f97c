package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// openDir opens dir in the place of a stick.
func openDir(t *testing.T, dir string) *Stick {
	t.Helper()
	s, err := Open(t.Context(), dir, Options{AllowDirectory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// fill writes files with one byte each, and the directories they need.
func fill(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// evilNames are file names that must pass through unchanged: they are data.
func evilNames() []string {
	return []string{
		"new\nline.mender", "\x1b[31mred.mender", "\xff\xfe.mender", "$(reboot).mender", "%s%n.mender",
		"-rf.mender", "\u202eredo.mender", "a b.mender", "*.mender", "\\..\\x.mender",
	}
}

func paths(l Listing) []string {
	var out []string
	for _, e := range l.Entries {
		out = append(out, e.Path)
	}
	return out
}

func TestCandidates(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "b.mender", "a.MENDER", "mender/c.mender", "MENDER/D.Mender", "x.mender.mender")
	want := []string{"MENDER/D.Mender", "a.MENDER", "b.mender", "mender/c.mender", "x.mender.mender"}
	fill(t, dir, "notes.txt", "mender.txt", "a.mender.part", ".mender", ".hidden.mender", "._b.mender",
		"System Volume Information/s.mender", ".Trashes/t.mender", "other/o.mender", "mender/deep/d.mender", "mender/.e.mender")
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "empty.mender"), nil, 0o600),
		os.Mkdir(filepath.Join(dir, "directory.mender"), 0o700),
		os.Symlink("b.mender", filepath.Join(dir, "link.mender")),
		os.Symlink("/etc/passwd", filepath.Join(dir, "out.mender")),
		os.Symlink("other", filepath.Join(dir, "Mender")),
		unix.Mkfifo(filepath.Join(dir, "fifo.mender"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	s := openDir(t, dir)
	got, err := s.Candidates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, paths(got)); diff != "" || got.LeftOut != 0 || got.Truncated {
		t.Errorf("Candidates = %+v (-want +got)\n%s", got, diff)
	}
	for _, e := range got.Entries {
		f, err := s.Open(e)
		if err != nil {
			t.Errorf("Open(%q): %v", e.Path, err)
			continue
		}
		if n, err := f.Read(make([]byte, 2)); int64(n) != e.Size || err != nil {
			t.Errorf("Read(%q) = %d, %v, want %d bytes", e.Path, n, err, e.Size)
		}
		f.Close()
	}
}

func TestCandidatesEvilNames(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, evilNames()...)
	s := openDir(t, dir)
	got, err := s.Candidates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := evilNames()
	slices.Sort(want)
	if diff := cmp.Diff(want, paths(got)); diff != "" {
		t.Errorf("Candidates (-want +got)\n%s", diff)
	}
	for _, e := range got.Entries {
		f, err := s.Open(e)
		if err != nil {
			t.Errorf("Open: %v", err)
			continue
		}
		f.Close()
	}
}

func TestCandidatesLeavesOut(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		fill(t, dir, fmt.Sprintf("%02d.mender", 19-i))
	}
	got, err := openDir(t, dir).Candidates(t.Context())
	if err != nil || len(got.Entries) != MaxCandidates || got.LeftOut != 4 || got.Truncated {
		t.Fatalf("Candidates = %d entries, %d left out, truncated %v, %v", len(got.Entries), got.LeftOut, got.Truncated, err)
	}
	for i, e := range got.Entries {
		if want := fmt.Sprintf("%02d.mender", i); e.Path != want {
			t.Errorf("entry %d is %q, want %q", i, e.Path, want)
		}
	}
}

// TestCandidatesTruncated checks the bounds on names and on directories.
func TestCandidatesTruncated(t *testing.T) {
	t.Run("names", func(t *testing.T) {
		dir := t.TempDir()
		fill(t, dir, "0")
		for i := range MaxEntries {
			if err := os.Link(filepath.Join(dir, "0"), filepath.Join(dir, fmt.Sprint(i+1))); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := openDir(t, dir).Candidates(t.Context()); err != nil || !got.Truncated {
			t.Errorf("Candidates = %+v, %v, want it truncated", got, err)
		}
	})
	t.Run("directories", func(t *testing.T) {
		dir := t.TempDir()
		fill(t, dir, "mender/a.mender", "Mender/a.mender", "mEnder/a.mender", "meNder/a.mender", "menDer/a.mender")
		if got, err := openDir(t, dir).Candidates(t.Context()); err != nil || !got.Truncated || len(got.Entries) != maxDirs {
			t.Errorf("Candidates = %+v, %v, want %d entries and it truncated", got, err, maxDirs)
		}
	})
}

func TestCandidatesEmptyStick(t *testing.T) {
	got, err := openDir(t, t.TempDir()).Candidates(t.Context())
	if diff := cmp.Diff(Listing{}, got); diff != "" || err != nil {
		t.Errorf("Candidates: %v %s", err, diff)
	}
}

func TestCandidatesCanceled(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "a.mender")
	ctx, cancel := context.WithCancelCause(t.Context())
	pulled := errors.New("stick pulled")
	cancel(pulled)
	if _, err := openDir(t, dir).Candidates(ctx); !errors.Is(err, pulled) {
		t.Errorf("Candidates: %v, want %v", err, pulled)
	}
}

// TestOpenRefuses checks that Open gives nothing that Candidates would not list,
// also if it is asked to.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "a.mender", "other/o.mender", "mender/m.mender", "notes.txt", ".h.mender", "mender/deep/d.mender", "mender/real/r.mender")
	err := errors.Join(
		os.Mkdir(filepath.Join(dir, "directory.mender"), 0o700),
		os.Symlink("a.mender", filepath.Join(dir, "link.mender")),
		os.Symlink("/etc/passwd", filepath.Join(dir, "out.mender")),
		os.Symlink("other", filepath.Join(dir, "MENDER")),
		unix.Mkfifo(filepath.Join(dir, "fifo.mender"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	s := openDir(t, dir)
	for _, name := range []string{
		"", ".", "/", "..", "a.mender/", "/a.mender", "../a.mender", "./a.mender", "mender/../a.mender", "mender//m.mender",
		"other/o.mender", "notes.txt", ".h.mender", "mender/deep/d.mender", "none.mender", "mender/none.mender", "a.mender\x00",
		"directory.mender", "link.mender", "out.mender", "MENDER/o.mender", "fifo.mender",
	} {
		if f, err := s.Open(Entry{Path: name}); err == nil {
			f.Close()
			t.Errorf("Open(%q) works, want an error", name)
		}
	}
	if _, err := s.Open(Entry{Path: "none.mender"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of nothing: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestOpenDirectory(t *testing.T) {
	dir := t.TempDir()
	if s, err := Open(t.Context(), dir, Options{}); err == nil {
		s.Close()
		t.Error("Open of a directory that is not allowed works")
	}
	s := openDir(t, dir)
	if s.Name != dir || s.Type != "" || s.Dev != 0 {
		t.Errorf("stick is %q, type %q, device %d", s.Name, s.Type, s.Dev)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Errorf("Close twice: %v", err)
	}
	if _, err := s.Candidates(t.Context()); err == nil {
		t.Error("Candidates of a closed stick: no error")
	}
}

func TestOpenCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Either end may come first; both must leave nothing behind.
	if s, err := Open(ctx, t.TempDir(), Options{AllowDirectory: true}); err == nil {
		s.Close()
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v, want %v", err, context.Canceled)
	}
}
