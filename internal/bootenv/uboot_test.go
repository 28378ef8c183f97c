package bootenv_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
)

// open returns a store of these copies, locked in a directory of its own.
func open(t *testing.T, copies ...bootenv.Copy) *bootenv.UBoot {
	t.Helper()
	u, err := bootenv.OpenUBoot(bootenv.UBootConfig{Copies: copies, Locks: []string{filepath.Join(t.TempDir(), "lock")}})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func encode(t *testing.T, vars map[string]string, size int, flags *byte) []byte {
	t.Helper()
	image, err := bootenvtest.EncodeImage(vars, size, flags)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func writeFile(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOneFileTwoOffsets: the environment as a part of something larger, which
// must stay as it is.
func TestOneFileTwoOffsets(t *testing.T) {
	const size = 0x400
	older := encode(t, map[string]string{"a": "old"}, size, new(byte(7)))
	newer := encode(t, map[string]string{"a": "now"}, size, new(byte(8)))
	gap := bytes.Repeat([]byte("gap"), 111)
	whole := slices.Concat(gap, older, gap, newer)
	path := writeFile(t, whole)
	u := open(t, bootenv.Copy{Path: path, Offset: 333, Size: size}, bootenv.Copy{Path: path, Offset: -size, Size: size})
	if err := u.Update(t.Context(), bootenv.Var{Name: "b", Value: "1"}); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(gap, encode(t, map[string]string{"a": "now", "b": "1"}, size, new(byte(9))), gap, newer)
	if !bytes.Equal(readFile(t, path), want) {
		t.Error("the file is not the old one with one new copy")
	}
	h, err := u.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantHealth := bootenv.Health{
		Copies: []bootenv.CopyHealth{{Place: path + " offset 0x14d", Flags: 9}, {Place: path + " offset -0x400", Flags: 8}},
		Vars:   2, Free: size - 5 - len("a=now.b=1.."), Atomic: true,
	}
	if diff := cmp.Diff(wantHealth, h); diff != "" {
		t.Errorf("Check (-want +got):\n%s", diff)
	}
}

func TestSingleFileIsReplaced(t *testing.T) {
	const size = 0x400
	head := []byte("before")
	path := writeFile(t, slices.Concat(head, encode(t, map[string]string{"a": "1"}, size, nil), []byte("after")))
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	leftover := filepath.Join(dir, ".env.new")
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.WriteFile(leftover, []byte("cut"), 0o600), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	u := open(t, bootenv.Copy{Path: link, Offset: int64(len(head)), Size: size})
	if err := u.Update(t.Context(), bootenv.Var{Name: "a", Value: "2"}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(before, after) {
		t.Error("the file was written in place")
	}
	if after.Mode() != before.Mode() {
		t.Errorf("mode is %v, was %v", after.Mode(), before.Mode())
	}
	if _, err := os.Readlink(link); err != nil {
		t.Errorf("the link was replaced: %v", err)
	}
	if _, err := os.Stat(leftover); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the new file was left behind: %v", err)
	}
	want := slices.Concat(head, encode(t, map[string]string{"a": "2"}, size, nil), []byte("after"))
	if !bytes.Equal(readFile(t, path), want) {
		t.Error("the file is not the old one with a new environment")
	}
}

// TestSingleLargeFile: an only copy that no rename can replace.
func TestSingleLargeFile(t *testing.T) {
	path := writeFile(t, encode(t, map[string]string{"a": "1"}, 0x400, nil))
	if err := os.Truncate(path, 17<<20); err != nil {
		t.Fatal(err)
	}
	copies := []bootenv.Copy{{Path: path, Size: 0x400}}
	pair := bootenv.Var{Name: "a", Value: "2"}
	u := open(t, copies...)
	if _, err := u.Check(t.Context(), pair); !errors.Is(err, bootenv.ErrNotAtomic) {
		t.Errorf("Check = %v, want ErrNotAtomic", err)
	}
	if err := u.Update(t.Context(), pair); !errors.Is(err, bootenv.ErrNotAtomic) {
		t.Errorf("Update = %v, want ErrNotAtomic", err)
	}
	u, err := bootenv.OpenUBoot(bootenv.UBootConfig{Copies: copies, AllowSingleCopy: true, Locks: []string{path + ".lock"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Update(t.Context(), pair); err != nil {
		t.Errorf("Update where it is allowed: %v", err)
	}
	if got, err := u.Get(t.Context(), "a", "b"); err != nil || got["a"] != "2" || len(got) != 1 {
		t.Errorf("Get = %v, %v", got, err)
	}
}

// TestOneBadCopy: the next update repairs it.
func TestOneBadCopy(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"short":  func(p string) error { return os.Truncate(p, 3) },
		"empty":  func(p string) error { return os.Truncate(p, 0) },
		"erased": func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{0xff}, 0x4000), 0o644) },
	} {
		for bad := range 2 {
			t.Run(name, func(t *testing.T) {
				u, paths := openFiles(t, shipped(), true)
				if err := spoil(paths[bad]); err != nil {
					t.Fatal(err)
				}
				h, err := u.Check(t.Context())
				if err != nil || h.Active != 1-bad || len(h.Degraded) != 1 || !errors.Is(h.Copies[bad].Err, bootenv.ErrCorrupt) {
					t.Fatalf("Check = %+v, %v", h, err)
				}
				if err := u.Update(t.Context(), bootenv.Var{Name: "a", Value: "1"}); err != nil {
					t.Fatal(err)
				}
				h, err = u.Check(t.Context())
				if err != nil || h.Active != bad || h.Degraded != nil {
					t.Errorf("Check after Update = %+v, %v", h, err)
				}
			})
		}
	}
}

// TestMissingCopy: a copy that is not there is a bad copy. What is written
// needs it, so an update is refused before it writes.
func TestMissingCopy(t *testing.T) {
	for missing := range 2 {
		u, paths := openFiles(t, shipped(), true)
		if err := os.Remove(paths[missing]); err != nil {
			t.Fatal(err)
		}
		before := readFile(t, paths[1-missing])
		h, err := u.Check(t.Context())
		if err != nil || h.Active != 1-missing || len(h.Degraded) != 1 || !errors.Is(h.Copies[missing].Err, bootenv.ErrNotFound) {
			t.Errorf("copy %d is missing: Check = %+v, %v", missing, h, err)
		}
		if got, err := u.Get(t.Context()); err != nil || got["upgrade_available"] != "0" {
			t.Errorf("copy %d is missing: Get = %v, %v", missing, got, err)
		}
		err = u.Update(t.Context(), bootenv.Var{Name: "a", Value: "1"})
		if !errors.Is(err, bootenv.ErrNotFound) || !bytes.Equal(readFile(t, paths[1-missing]), before) {
			t.Errorf("copy %d is missing: Update = %v, want ErrNotFound and no write", missing, err)
		}
	}
}

func TestErrors(t *testing.T) {
	good := encode(t, map[string]string{"a": "1"}, 0x400, new(byte(1)))
	bad := bytes.Clone(good)
	bad[100]++
	dir := t.TempDir()
	tests := []struct {
		name   string
		copies []bootenv.Copy
		want   error
		text   string
	}{
		{"bad CRC", []bootenv.Copy{{Path: writeFile(t, bad), Size: 0x400}}, bootenv.ErrCorrupt, " offset 0x0: bad CRC"},
		{"both bad", []bootenv.Copy{{Path: writeFile(t, bad), Size: 0x400}, {Path: writeFile(t, nil), Size: 0x400}}, bootenv.ErrCorrupt, "too short: 0x0 of 0x400"},
		{"wrong offset", []bootenv.Copy{{Path: writeFile(t, make([]byte, 0x1000)), Offset: 0x800, Size: 0x400}}, bootenv.ErrCorrupt, "offset 0x800: bad CRC: the area is empty"},
		{"missing", []bootenv.Copy{{Path: filepath.Join(dir, "absent"), Size: 0x400}}, bootenv.ErrNotFound, "absent offset 0x0: not found"},
		{"before the start", []bootenv.Copy{{Path: writeFile(t, good), Offset: -0x401, Size: 0x400}}, nil, "before the start"},
		{"directory", []bootenv.Copy{{Path: dir, Size: 0x400}}, bootenv.ErrUnsupported, "neither a file nor a block device"},
		{"character device", []bootenv.Copy{{Path: "/dev/zero", Size: 0x400}}, bootenv.ErrUnsupported, "/dev/zero"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := open(t, tt.copies...)
			_, err := u.Get(t.Context())
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("Get = %v, want %v", err, tt.want)
			}
			if text := err.Error(); !strings.HasPrefix(text, "read boot environment "+tt.copies[0].Path) || !strings.Contains(text, tt.text) {
				t.Errorf("Get = %q, want text %q", text, tt.text)
			}
			if err := u.Update(t.Context(), bootenv.Var{Name: "a", Value: "2"}); err == nil {
				t.Error("Update succeeds")
			}
			if h, err := u.Check(t.Context()); err == nil || h.Active != -1 || len(h.Copies) != len(tt.copies) || h.Copies[0].Err == nil {
				t.Errorf("Check = %+v, %v", h, err)
			}
		})
	}
}

// TestSameBytes: two names of one file are no redundancy.
func TestSameBytes(t *testing.T) {
	path := writeFile(t, encode(t, map[string]string{"a": "1"}, 0x400, new(byte(1))))
	link := path + ".link"
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	u := open(t, bootenv.Copy{Path: path, Size: 0x400}, bootenv.Copy{Path: link, Size: 0x400})
	if _, err := u.Get(t.Context()); err == nil || !strings.Contains(err.Error(), "same bytes") {
		t.Errorf("Get = %v, want an error about the same bytes", err)
	}
}

func TestNoSpace(t *testing.T) {
	const size = 0x400
	u := open(t, bootenv.Copy{Path: writeFile(t, encode(t, nil, size, nil)), Size: size})
	room := size - 4 - len("z=") - 2 // a NUL and the empty string
	if err := u.Update(t.Context(), bootenv.Var{Name: "z", Value: strings.Repeat("q", room+1)}); !errors.Is(err, bootenv.ErrNoSpace) {
		t.Errorf("Update one byte too many = %v, want ErrNoSpace", err)
	}
	if err := u.Update(t.Context(), bootenv.Var{Name: "z", Value: strings.Repeat("q", room)}); err != nil {
		t.Errorf("Update that just fits: %v", err)
	}
	if h, err := u.Check(t.Context()); err != nil || h.Free != 0 || len(h.Degraded) != 1 {
		t.Errorf("Check = %+v, %v", h, err)
	}
}

func TestNothingWrittenWhenNothingChanges(t *testing.T) {
	u, paths := openFiles(t, shipped(), true)
	before := slices.Concat(readFile(t, paths[0]), readFile(t, paths[1]))
	if err := u.Update(t.Context(), bootenv.Var{Name: "bootcount", Value: "0"}, bootenv.Var{Name: "absent"}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(slices.Concat(readFile(t, paths[0]), readFile(t, paths[1])), before) {
		t.Error("a copy changed")
	}
}

func TestDegraded(t *testing.T) {
	vars := map[string]string{"": "v"}
	for i := range 501 {
		vars["v"+strings.Repeat("x", i)] = "1"
	}
	const size = 256 << 10
	first := encode(t, vars, size, new(byte(3)))
	second := encode(t, vars, size, new(byte(9)))
	u := open(t, bootenv.Copy{Path: writeFile(t, first), Size: size}, bootenv.Copy{Path: writeFile(t, second), Size: size})
	h, err := u.Check(t.Context())
	if err != nil || h.Active != 1 {
		t.Fatalf("Check: active %d, %v", h.Active, err)
	}
	all := strings.Join(h.Degraded, "\n")
	for _, want := range []string{"3 and 9", "502 variables", "without a name"} {
		if !strings.Contains(all, want) {
			t.Errorf("Degraded = %q, lacks %q", all, want)
		}
	}
}

// TestMediaError: a medium that cannot be read is not a corrupt environment.
func TestMediaError(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	path := writeFile(t, encode(t, nil, 0x400, nil))
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, bootenv.Copy{Path: path, Size: 0x400}).Get(t.Context())
	if !errors.Is(err, syscall.EACCES) || errors.Is(err, bootenv.ErrCorrupt) {
		t.Errorf("Get = %v, want EACCES and not ErrCorrupt", err)
	}
}
