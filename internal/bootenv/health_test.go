package bootenv_test

import (
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/bootenv"
)

func TestLayoutWarnings(t *testing.T) {
	at := func(path string, offset int64, size int) bootenv.Copy {
		return bootenv.Copy{Path: path, Offset: offset, Size: size}
	}
	for _, tt := range []struct {
		name   string
		copies []bootenv.Copy
		want   []string // in the warnings, in order
	}{
		{"as Mender builds it", []bootenv.Copy{at("/d", 8<<20, 0x20000), at("/d", 16<<20, 0x20000)}, nil},
		{"two devices", []bootenv.Copy{at("/boot0", 0, 0x2000), at("/boot1", 0, 0x2000)}, nil},
		{"4 KiB apart", []bootenv.Copy{at("/d", 0x3000, 0x2000), at("/d", 0, 0x2000)}, nil},
		{"side by side", []bootenv.Copy{at("/d", 0x2000, 0x2000), at("/d", 0, 0x2000)}, []string{"0 bytes apart"}},
		{"from the end", []bootenv.Copy{at("/d", -0x2000, 0x2000), at("/d", -0x4800, 0x2000)}, []string{"2048 bytes apart"}},
		{"from both ends", []bootenv.Copy{at("/d", 0, 0x2000), at("/d", -0x2000, 0x2000)}, nil},
		{"same bytes", []bootenv.Copy{at("/d", 0, 0x2000), at("/d", 0x1000, 0x2000)}, []string{"same bytes"}},
		{"odd size", []bootenv.Copy{at("/a", 0, 0x2200), at("/b", 0, 0x2200)}, []string{"/a offset 0x0: the size 0x2200", "/b offset 0x0: the size 0x2200"}},
		{"one copy", []bootenv.Copy{at("/d", 0, 0x2000)}, []string{"only one"}},
	} {
		got := bootenv.LayoutWarnings(tt.copies)
		ok := len(got) == len(tt.want)
		for i := range got {
			ok = ok && strings.Contains(got[i], tt.want[i])
		}
		if !ok {
			t.Errorf("%s: LayoutWarnings = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestTarget(t *testing.T) {
	for _, tt := range []struct{ copies, active, want int }{{2, 0, 1}, {2, 1, 0}, {1, 0, 0}, {2, -1, -1}, {1, -1, -1}} {
		h := bootenv.Health{Copies: make([]bootenv.CopyHealth, tt.copies), Active: tt.active}
		if got := h.Target(); got != tt.want {
			t.Errorf("Target of %d copies, %d active = %d, want %d", tt.copies, tt.active, got, tt.want)
		}
	}
}
