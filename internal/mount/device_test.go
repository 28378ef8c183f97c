package mount

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeSysfs makes a sysfs with two disks, sda with two partitions and the
// internal mmcblk0 with one, and dm-0 on top of that one.
func fakeSysfs(t *testing.T) sysfs {
	t.Helper()
	sys := t.TempDir()
	add := func(dir, number string, files ...string) {
		t.Helper()
		dir = filepath.Join(sys, "devices", dir)
		err := errors.Join(
			os.MkdirAll(filepath.Join(dir, "slaves"), 0o700),
			os.MkdirAll(filepath.Join(sys, "dev/block"), 0o700),
			os.MkdirAll(filepath.Join(sys, "class/block"), 0o700),
			os.WriteFile(filepath.Join(dir, "dev"), []byte(number+"\n"), 0o600),
			os.Symlink(dir, filepath.Join(sys, "dev/block", number)),
			os.Symlink(dir, filepath.Join(sys, "class/block", filepath.Base(dir))))
		for _, f := range files {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, f), []byte("1\n"), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add("usb1/1-1/block/sda", "8:0")
	add("usb1/1-1/block/sda/sda1", "8:1", "partition")
	add("usb1/1-1/block/sda/sda2", "8:2", "partition")
	add("mmc/block/mmcblk0", "179:0")
	add("mmc/block/mmcblk0/mmcblk0p2", "179:2", "partition")
	add("virtual/block/dm-0", "253:0")
	err := os.Symlink(filepath.Join(sys, "devices/mmc/block/mmcblk0/mmcblk0p2"), filepath.Join(sys, "devices/virtual/block/dm-0/slaves/mmcblk0p2"))
	if err != nil {
		t.Fatal(err)
	}
	return sysfs(sys)
}

func TestCheckProtected(t *testing.T) {
	sys := fakeSysfs(t)
	var (
		disk, first, second = unix.Mkdev(8, 0), unix.Mkdev(8, 1), unix.Mkdev(8, 2)
		inner, innerRoot    = unix.Mkdev(179, 0), unix.Mkdev(179, 2)
		mapped              = unix.Mkdev(253, 0)
	)
	tests := []struct {
		name      string
		dev       uint64
		protected []uint64
		want      error
	}{
		{"nothing protected", first, nil, nil},
		{"another disk", first, []uint64{inner, innerRoot, mapped}, nil},
		{"itself", first, []uint64{first}, ErrProtected},
		{"partition of the same disk", first, []uint64{innerRoot, second}, ErrProtected},
		{"the whole disk of it", disk, []uint64{second}, ErrProtected},
		{"a part of the protected disk", second, []uint64{disk}, ErrProtected},
		{"below a mapped root", inner, []uint64{mapped}, ErrProtected},
		{"mapped over a protected disk", mapped, []uint64{inner}, ErrProtected},
		{"protected is no block device", first, []uint64{unix.Mkdev(0, 27)}, fs.ErrNotExist},
		{"stick is gone", unix.Mkdev(8, 16), []uint64{inner}, fs.ErrNotExist},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := sys.checkProtected(tt.dev, tt.protected); !errors.Is(err, tt.want) {
				t.Errorf("checkProtected = %v, want %v", err, tt.want)
			}
		})
	}
}

// TestDisksLoop checks that a stack of devices without an end is refused. The
// kernel makes none; the bound must not depend on that.
func TestDisksLoop(t *testing.T) {
	sys := t.TempDir()
	var dirs []string
	for i := range 2 * maxStack {
		dir := filepath.Join(sys, "devices", string(rune('a'+i)))
		dirs = append(dirs, dir)
		if err := os.MkdirAll(filepath.Join(dir, "slaves"), 0o700); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if err := os.Symlink(dir, filepath.Join(dirs[i-1], "slaves/x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := addDisks(map[string]bool{}, dirs[0], 0); err == nil {
		t.Error("addDisks of a stack that is too high: no error")
	}
}

func TestOpenDeviceRefuses(t *testing.T) {
	sys := fakeSysfs(t)
	dir := t.TempDir()
	fifo, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "file")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, dev := range []string{
		"", ".", "..", "sda\x00", "SDA1", "sda 1", "sda1\n", "%s", "dm-0", "sdz", // no kernel names, or of nothing
		"/dev/null", dir, fifo, file, filepath.Join(dir, "none"), // no block devices
	} {
		if blk, err := sys.openDevice(dev); err == nil {
			t.Errorf("openDevice(%q) = %s, want an error", dev, blk.name)
		}
	}
}

func TestIsKernelName(t *testing.T) {
	for name, want := range map[string]bool{
		"sda": true, "sda1": true, "mmcblk0p2": true, "cciss!c0d0": true,
		"": false, ".": false, "dm-0": false, "sd/a": false, "SDA": false, "sda ": false, "sd\xe4": false, "a%i": false,
	} {
		if got := isKernelName(name); got != want {
			t.Errorf("isKernelName(%q) = %v, want %v", name, got, want)
		}
	}
}
