package mount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const mountinfo = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 179:2 / / rw,relatime shared:1 master:2 - ext4 /dev/root rw
30 27 8:1 / /media/a\040b\011\134c\012 ro - vfat /dev/sda1 ro
31 27 8:1 / /again ro - vfat /dev/sda1 ro
32 27 259:70000 / /nvme rw - ext4 /dev/nvme0n1p9 rw
`

func TestFindMount(t *testing.T) {
	tests := []struct {
		name         string
		major, minor uint32
		where        string
		ok           bool
	}{
		{"root", 179, 2, "/", true},
		{"escapes, first of two", 8, 1, "/media/a b\t\\c\n", true},
		{"large minor", 259, 70000, "/nvme", true},
		{"not mounted", 8, 2, "", false},
		{"major alone", 179, 1, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			where, ok, err := findMount(strings.NewReader(mountinfo), unix.Mkdev(tt.major, tt.minor))
			if where != tt.where || ok != tt.ok || err != nil {
				t.Errorf("findMount(%d:%d) = %q, %v, %v, want %q, %v", tt.major, tt.minor, where, ok, err, tt.where, tt.ok)
			}
		})
	}
}

// TestFindMountMalformed checks that what cannot be read is not "not mounted".
func TestFindMountMalformed(t *testing.T) {
	for name, in := range map[string]string{
		"few fields":     "27 1 8:1 / /\n",
		"empty line":     "\n",
		"no colon":       "27 1 81 / / rw - ext4 x rw\n",
		"no number":      "27 1 8:x / / rw - ext4 x rw\n",
		"negative":       "27 1 8:-1 / / rw - ext4 x rw\n",
		"line too long":  "27 1 8:1 / /" + strings.Repeat("a", maxMountLine) + " rw - ext4 x rw\n",
		"after the good": "27 1 8:1 / / rw - ext4 x rw\nrubbish\n",
	} {
		if where, ok, err := findMount(strings.NewReader(in), unix.Mkdev(9, 9)); err == nil {
			t.Errorf("findMount of %s = %q, %v, want an error", name, where, ok)
		}
	}
}

func TestIsMounted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	if _, _, err := isMounted(file, 1); err == nil {
		t.Error("isMounted without a mountinfo: no error")
	}
	if err := os.WriteFile(file, []byte(mountinfo), 0o600); err != nil {
		t.Fatal(err)
	}
	if where, ok, err := isMounted(file, unix.Mkdev(179, 2)); where != "/" || !ok || err != nil {
		t.Errorf("isMounted = %q, %v, %v, want /, true", where, ok, err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self", &st); err != nil {
		t.Skip("no /proc")
	}
	if where, ok, err := IsMounted(uint64(st.Dev)); where != "/proc" || !ok || err != nil {
		t.Errorf("IsMounted(/proc) = %q, %v, %v, want /proc, true", where, ok, err)
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

// FuzzFindMount checks that no input panics, and that a mount point is found
// again under the escapes that the kernel would write.
func FuzzFindMount(f *testing.F) {
	f.Add("/a b", mountinfo)
	f.Add(`/\040`, "")
	f.Fuzz(func(t *testing.T, where, rest string) {
		if len(where) > 4096 || where == "" {
			t.Skip() // no path
		}
		escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(where)
		if strings.HasSuffix(escaped, "\r") {
			t.Skip()
		}
		line := "1 1 8:1 / " + escaped + " rw - ext4 x rw\n"
		got, ok, err := findMount(strings.NewReader(line+rest), unix.Mkdev(8, 1))
		if got != where || !ok || err != nil {
			t.Fatalf("findMount = %q, %v, %v, want %q", got, ok, err, where)
		}
		_, _, _ = findMount(strings.NewReader(rest), unix.Mkdev(8, 1))
	})
}
