package mount

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/test/sim"
)

// TestCheckFindsAnotherStick checks all ways in which sysfs shows that a stick
// is not the one that was opened.
func TestCheckFindsAnotherStick(t *testing.T) {
	const disk = "devices/usb1/1-1/block/sda"
	setSequence := func(sys sysfs, n string) error {
		return os.WriteFile(filepath.Join(string(sys), disk, "diskseq"), []byte(n), 0o600)
	}
	tests := []struct {
		name   string
		change func(sys sysfs) error
		want   error
	}{
		{"the same", func(sysfs) error { return nil }, nil},
		{"pulled out", func(sys sysfs) error {
			return errors.Join(os.Remove(filepath.Join(string(sys), "dev/block/8:1")), os.RemoveAll(filepath.Join(string(sys), disk)))
		}, ErrGone},
		{"another card", func(sys sysfs) error { return setSequence(sys, "8\n") }, ErrGone},
		{"another port", func(sys sysfs) error {
			link := filepath.Join(string(sys), "dev/block/8:1")
			other := filepath.Join(string(sys), "devices/usb1/1-2/block/sda/sda1")
			return errors.Join(os.MkdirAll(other, 0o700), os.Remove(link), os.Symlink(other, link),
				os.WriteFile(filepath.Join(other, "partition"), nil, 0o600),
				os.WriteFile(filepath.Join(other, "../diskseq"), []byte("7\n"), 0o600))
		}, ErrGone},
		{"the same port again", func(sys sysfs) error {
			// Kept beside, or its inode could be given out again.
			dir := filepath.Join(string(sys), disk, "sda1")
			return errors.Join(os.Rename(dir, dir+"-old"), os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "partition"), nil, 0o600))
		}, ErrGone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sys := fakeSysfs(t)
			if err := setSequence(sys, "7\n"); err != nil {
				t.Fatal(err)
			}
			number := unix.Mkdev(8, 1)
			id, err := sys.identityOf(number)
			if err != nil || id.sequence != 7 {
				t.Fatalf("identityOf = %+v, %v, want sequence 7", id, err)
			}
			stick := &Stick{Name: "sda1", Dev: number, sys: sys, id: id}
			present, err := Presence("sda1", Options{Sysfs: string(sys)})
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.change(sys); err != nil {
				t.Fatal(err)
			}
			for name, check := range map[string]func() error{"Check": stick.Check, "Presence": present} {
				if err := check(); !errors.Is(err, tt.want) {
					t.Errorf("%s = %v, want %v", name, err, tt.want)
				}
			}
		})
	}
}

// TestAppearances: a stick has the same name as long as it stays plugged in, and
// another one in each case in which it does not.
func TestAppearances(t *testing.T) {
	sys := fakeSysfs(t)
	disk := filepath.Join(string(sys), "devices/usb1/1-1/block/sda")
	now := func() (all []string, stick string) {
		t.Helper()
		all, err := Appearances(string(sys))
		if err != nil || len(all) != 6 {
			t.Fatalf("Appearances = %q, %v, want 6", all, err)
		}
		id, err := sys.identityOf(unix.Mkdev(8, 1))
		if err != nil {
			t.Fatal(err)
		}
		return all, (&Stick{Name: "sda1", Dev: unix.Mkdev(8, 1), sys: sys, id: id}).Appearance()
	}
	before, stick := now()
	if again, _ := now(); !slices.Contains(before, stick) || !slices.Contains(again, stick) {
		t.Errorf("%q is not among %q", stick, again)
	}
	if err := os.WriteFile(filepath.Join(disk, "diskseq"), []byte("8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, card := now(); slices.Contains(before, card) {
		t.Errorf("another card is %q, too", card)
	}
	dir := filepath.Join(disk, "sda1")
	if err := errors.Join(os.Rename(dir, dir+"-old"), os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "partition"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(disk, "diskseq")); err != nil {
		t.Fatal(err)
	}
	if _, again := now(); slices.Contains(before, again) {
		t.Errorf("the stick, plugged in again, is %q, too", again)
	}
	if name := (&Stick{Name: "/stick"}).Appearance(); name != "" {
		t.Errorf("a directory appears as %q", name)
	}
	if err := os.RemoveAll(disk); err != nil { // just now
		t.Fatal(err)
	}
	if left, err := Appearances(string(sys)); err != nil || len(left) != 3 {
		t.Errorf("Appearances = %q, %v, want 3", left, err)
	}
	if err := os.WriteFile(filepath.Join(string(sys), "dev/block/x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := Appearances(string(sys)); err == nil {
		t.Errorf("Appearances = %q with a device that has no number", all)
	}
}

// TestAppearancesHere asks the kernel that runs, which may have no block device.
func TestAppearancesHere(t *testing.T) {
	names, err := Appearances("/sys")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "/sys/devices/") || strings.ContainsAny(name, "\n") {
			t.Errorf("an appearance is named %q", name)
		}
	}
}

func TestPresenceOfNothing(t *testing.T) {
	for _, dev := range []string{"sdz", "../sda1", t.TempDir(), "/dev/null", "/nonexistent"} {
		if _, err := Presence(dev, Options{Sysfs: string(fakeSysfs(t))}); err == nil {
			t.Errorf("Presence(%q) works", dev)
		}
	}
}

func TestIdentityDamaged(t *testing.T) {
	sys := fakeSysfs(t)
	if err := os.WriteFile(filepath.Join(string(sys), "devices/usb1/1-1/block/sda/diskseq"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := sys.identityOf(unix.Mkdev(8, 1)); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("identityOf = %+v, %v, want an error about diskseq", id, err)
	}
}

// TestCheckMedium changes the medium under a mounted stick: the name, the
// number and the mount stay.
func TestCheckMedium(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	fill(t, dir, "a.mender")
	image := ext4Image(t, dir)
	dev, _ := loop(t, image, "--read-only")
	if _, err := os.Stat(filepath.Join("/sys/class/block", filepath.Base(dev), "diskseq")); err != nil {
		t.Skipf("the kernel does not number media: %v", err)
	}
	stick, err := Open(t.Context(), dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stick.Close()
	if err := stick.Check(); err != nil {
		t.Fatalf("Check = %v", err)
	}
	if err := sim.ChangeMedium(dev, image, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if err := stick.Check(); !errors.Is(err, ErrGone) {
		t.Errorf("Check with another medium = %v, want %v", err, ErrGone)
	}
}

// TestCheckDetached opens a block device that is gone a moment later. Whoever
// takes its name by then has another stick.
func TestCheckDetached(t *testing.T) {
	needRoot(t)
	image := ext4Image(t, t.TempDir())
	losetup := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "losetup", args...).Output()
		if err != nil {
			t.Fatalf("losetup %q: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	dev := losetup("--find", "--show", "--read-only", image)
	sys := sysfs("/sys")
	blk, err := sys.openDevice(dev)
	if err != nil {
		losetup("--detach", dev)
		t.Fatal(err)
	}
	id, idErr := sys.identifyOpen(blk)
	stick := &Stick{Name: filepath.Base(dev), Dev: blk.number, sys: sys, id: id}
	before := stick.Check()
	closeErr := blk.file.Close()
	losetup("--detach", dev)
	if err := errors.Join(idErr, before, closeErr); err != nil {
		t.Fatal(err)
	}
	if id.sequence == 0 {
		t.Skip("the kernel does not number media: it is older than Linux 5.15")
	}
	if err := stick.Check(); !errors.Is(err, ErrGone) {
		t.Errorf("Check after the device was detached = %v, want %v", err, ErrGone)
	}
}
