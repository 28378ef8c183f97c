package bootenv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"

	"golang.org/x/sys/unix"
)

// loopDevice returns a block device with this content.
func loopDevice(t *testing.T, content []byte) string {
	t.Helper()
	tier.Device.Need(t, "losetup", "blockdev")
	if os.Geteuid() != 0 {
		t.Skip("a loop device needs root")
	}
	backing := filepath.Join(t.TempDir(), "backing")
	if err := os.WriteFile(backing, content, 0o600); err != nil {
		t.Fatal(err)
	}
	out, ok := run(t, "", "losetup", "--find", "--show", backing)
	if !ok {
		t.Fatal("losetup finds no free loop device")
	}
	device := strings.TrimSpace(out)
	t.Cleanup(func() {
		if err := detach(device); err != nil {
			t.Error(err)
		}
	})
	return device
}

// detach takes the backing file from a loop device.
func detach(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0), f.Close())
}

// brokenWrites is a medium that takes no writes.
type brokenWrites struct{ medium }

var errBrokenWrites = errors.New("broken")

func (brokenWrites) WriteAt([]byte, int64) (int, error) { return 0, errBrokenWrites }

// TestForceROIsRestored: the protection of an eMMC boot partition is lifted for
// a write only, and what it was comes back however the write ends.
func TestForceROIsRestored(t *testing.T) {
	l := layout{redundant: true, order: binary.NativeEndian}
	image := l.encode(stringList{"a=1"}, 1, 0x1000)
	device := loopDevice(t, slices.Concat(image, image))
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		t.Fatal(err)
	}
	sysfs := t.TempDir()
	attr := forceRO(sysfs, st.Rdev)
	if err := os.MkdirAll(filepath.Dir(attr), 0o755); err != nil {
		t.Fatal(err)
	}
	now := func() string {
		b, _ := os.ReadFile(attr)
		return string(bytes.TrimSpace(b))
	}
	value := 1
	update := func(t *testing.T, change func(m medium) medium) error {
		t.Helper()
		u, err := OpenUBoot(UBootConfig{
			Copies: []Copy{{device, 0, 0x1000}, {device, 0x1000, 0x1000}},
			Locks:  []string{filepath.Join(sysfs, "lock")}, Sysfs: sysfs,
		})
		if err != nil {
			t.Fatal(err)
		}
		open, before := u.open, now()
		u.open = func(c Copy, write bool) (medium, error) {
			m, err := open(c, write)
			if want := map[bool]string{false: before, true: "0"}[write && err == nil]; now() != want {
				t.Errorf("open for writing %v: force_ro is %q, want %q", write, now(), want)
			}
			if write && err == nil {
				m = change(m)
			}
			return m, err
		}
		value++
		return u.Update(t.Context(), Var{"a", fmt.Sprint(value)})
	}
	same := func(m medium) medium { return m }
	for _, old := range []string{"1", "0"} {
		if err := os.WriteFile(attr, []byte(old+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := update(t, same); err != nil || now() != old {
			t.Errorf("Update = %v, force_ro is %q, was %q", err, now(), old)
		}
		err := update(t, func(m medium) medium { return brokenWrites{m} })
		if !errors.Is(err, errBrokenWrites) || now() != old {
			t.Errorf("the write fails: Update = %v, force_ro is %q, was %q", err, now(), old)
		}
	}
	if err := os.WriteFile(attr, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok := run(t, "", "blockdev", "--setro", device); !ok {
		t.Fatal("blockdev fails")
	}
	if err := update(t, same); err == nil || now() != "1" {
		t.Errorf("the device cannot be opened: Update = %v, force_ro is %q, was 1", err, now())
	}
	if _, ok := run(t, "", "blockdev", "--setrw", device); !ok {
		t.Fatal("blockdev fails")
	}
	// What cannot be restored is told, although the new values are in force.
	err := update(t, func(m medium) medium {
		if err := os.Remove(attr); err != nil {
			t.Error(err)
		}
		return m
	})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("force_ro cannot be restored: Update = %v", err)
	}
}
