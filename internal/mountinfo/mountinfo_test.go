package mountinfo

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const list = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 179:2 / / rw,relatime shared:1 master:2 - ext4 /dev/root rw
30 27 8:1 / /media/a\040b\011\134c\012 ro - vfat /dev/sda1 ro
31 27 8:1 / /again ro - vfat /dev/sda1 ro
32 27 259:70000 / /nvme rw - ext4 /dev/nvme0n1p9 rw
33 27 0:40 / /mnt rw shared:4 - ubifs ubi0:root\040fs rw,assert=read-only
`

// device matches a mount by its number.
func device(major, minor uint32) func(Entry) (bool, error) {
	return func(e Entry) (bool, error) { return e.Dev == unix.Mkdev(major, minor), nil }
}

func TestFind(t *testing.T) {
	tests := []struct {
		name         string
		major, minor uint32
		want         Entry
	}{
		{"root", 179, 2, Entry{Point: "/", FSType: "ext4", Source: "/dev/root", Shared: true, Slave: true}},
		{"escapes, first of two", 8, 1, Entry{Point: "/media/a b\t\\c\n", FSType: "vfat", Source: "/dev/sda1"}},
		{"large minor", 259, 70000, Entry{Point: "/nvme", FSType: "ext4", Source: "/dev/nvme0n1p9"}},
		{"no tags", 0, 21, Entry{Point: "/proc", FSType: "proc", Source: "proc"}},
		{"escape in the source", 0, 40, Entry{Point: "/mnt", FSType: "ubifs", Source: "ubi0:root fs", Shared: true}},
		{"not mounted", 8, 2, Entry{}},
		{"major alone", 179, 1, Entry{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if want.Point != "" {
				want.Dev = unix.Mkdev(tt.major, tt.minor)
			}
			got, ok, err := find(strings.NewReader(list), device(tt.major, tt.minor))
			if got != want || ok != (want.Point != "") || err != nil {
				t.Errorf("find(%d:%d) = %+v, %v, %v, want %+v", tt.major, tt.minor, got, ok, err, want)
			}
		})
	}
}

// TestFindMalformed checks that what cannot be read is not "not mounted".
func TestFindMalformed(t *testing.T) {
	for name, in := range map[string]string{
		"few fields":     "27 1 8:1 / /\n",
		"empty line":     "\n",
		"no dash":        "27 1 8:1 / / rw ext4 x rw\n",
		"no source":      "27 1 8:1 / / rw - ext4\n",
		"no colon":       "27 1 81 / / rw - ext4 x rw\n",
		"no number":      "27 1 8:x / / rw - ext4 x rw\n",
		"negative":       "27 1 8:-1 / / rw - ext4 x rw\n",
		"line too long":  "27 1 8:1 / /" + strings.Repeat("a", maxLine) + " rw - ext4 x rw\n",
		"after the good": "27 1 8:1 / / rw - ext4 x rw\nrubbish\n",
	} {
		if e, ok, err := find(strings.NewReader(in), device(9, 9)); err == nil {
			t.Errorf("find in %s = %+v, %v, want an error", name, e, ok)
		}
	}
}

func TestFindInFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	if _, _, err := Find(file, device(1, 1)); err == nil {
		t.Error("Find without a file: no error")
	}
	if err := os.WriteFile(file, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, ok, err := Find(file, device(179, 2)); e.Point != "/" || !ok || err != nil {
		t.Errorf("Find = %+v, %v, %v, want /, true", e, ok, err)
	}
	unsure := errors.New("unsure")
	_, _, err := Find(file, func(Entry) (bool, error) { return false, unsure })
	if !errors.Is(err, unsure) || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("Find with a match that fails: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self", &st); err != nil {
		t.Skip("no /proc")
	}
	e, ok, err := Find(Self, func(e Entry) (bool, error) { return e.Dev == st.Dev, nil })
	if e.Point != "/proc" || e.FSType != "proc" || !ok || err != nil {
		t.Errorf("Find(/proc) = %+v, %v, %v", e, ok, err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"":             "",
		"/plain":       "/plain",
		`\040`:         " ",
		`a\134b\134`:   `a\b\`,
		`\377`:         "\xff",
		`\400`:         `\400`, // more than a byte
		`\04`:          `\04`,
		`\`:            `\`,
		`\089`:         `\089`,
		`\134040`:      `\040`, // decoded once
		`\+12`:         `\+12`,
		"\\040\xff\\_": " \xff\\_",
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzFind checks that no input panics, and that a mount point is found again
// under the escapes that the kernel would write.
func FuzzFind(f *testing.F) {
	f.Add("/a b", list)
	f.Add(`/\040`, "")
	f.Fuzz(func(t *testing.T, where, rest string) {
		if len(where) > 4096 || where == "" {
			t.Skip() // no path
		}
		escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(where)
		line := "1 1 8:1 / " + escaped + " rw - ext4 " + escaped + " rw\n"
		got, ok, err := find(strings.NewReader(line+rest), device(8, 1))
		if got.Point != where || got.Source != where || !ok || err != nil {
			t.Fatalf("find = %+v, %v, %v, want %q", got, ok, err, where)
		}
		_, _, _ = find(strings.NewReader(rest), device(8, 1))
	})
}

func TestAt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(file, []byte(list+"34 27 0:41 / /mnt rw,relatime master:4 - tmpfs over rw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/": "/dev/root", "/run/x": "/dev/root", "/proc": "proc", "/proc/1": "proc", "/process": "/dev/root", "/mnt/x": "over", "/media/a b\t\\c\n": "/dev/sda1",
	} {
		if e, err := At(file, path); err != nil || e.Source != want {
			t.Errorf("At(%q) = %+v, %v, want the mount of %s", path, e, err, want)
		}
	}
	if err := os.WriteFile(file, []byte("22 27 0:21 / /proc rw - proc proc rw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := At(file, "/run"); err == nil {
		t.Errorf("At without a root = %+v, want an error", e)
	}
}
