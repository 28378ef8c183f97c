package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeSysfs makes a sysfs with two sticks, the first one with a partition, and
// what must not be taken for one.
func fakeSysfs(t *testing.T) string {
	t.Helper()
	sys := t.TempDir()
	class := filepath.Join(sys, "class/block")
	if err := os.MkdirAll(class, 0o700); err != nil {
		t.Fatal(err)
	}
	add := func(dir, number string) {
		t.Helper()
		dir = filepath.Join("devices", dir)
		err := errors.Join(
			os.MkdirAll(filepath.Join(sys, dir), 0o700),
			os.WriteFile(filepath.Join(sys, dir, "dev"), []byte(number), 0o600),
			os.Symlink(filepath.Join("../..", dir), filepath.Join(class, filepath.Base(dir))))
		if err != nil {
			t.Fatal(err)
		}
	}
	add("soc@0/1.usb/usb1/1-1/host0/block/sda", "8:0\n")
	add("soc@0/1.usb/usb1/1-1/host0/block/sda/sda1", "8:1\n")
	add("pci0/usb12/12-1/host1/block/sdb", "8:16\n")
	add("pci0/usb12/12-1/host1/block/sdd", "8:48\n") // a reader without a card
	add("mmc0/block/mmcblk0", "179:0\n")
	add("mmc0/block/mmcblk0/mmcblk0p1", "179:1\n")
	add("virtual/block/loop0", "7:0\n")
	add("pci0/usb12/12-2/block/Bad-Name", "8:32\n")
	err := errors.Join(
		os.WriteFile(filepath.Join(sys, "devices/soc@0/1.usb/usb1/1-1/host0/block/sda/sda1/partition"), []byte("1\n"), 0o600),
		os.WriteFile(filepath.Join(sys, "devices/mmc0/block/mmcblk0/mmcblk0p1/partition"), []byte("1\n"), 0o600),
		os.WriteFile(filepath.Join(sys, "devices/pci0/usb12/12-1/host1/block/sdd/size"), []byte("0\n"), 0o600),
		os.Symlink("../../devices/gone", filepath.Join(class, "sdc")))
	if err != nil {
		t.Fatal(err)
	}
	return sys
}

func TestScan(t *testing.T) {
	got, err := Scan(fakeSysfs(t))
	want := []Device{
		{Name: "sda1", Major: 8, Minor: 1, Action: Add, Partition: true, Disk: "sda"},
		{Name: "sdb", Major: 8, Minor: 16, Action: Add, Disk: "sdb"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Scan: %v (-want +got)\n%s", err, diff)
	}
}

func TestScanFails(t *testing.T) {
	if _, err := Scan(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Scan without sysfs: %v, want %v", err, os.ErrNotExist)
	}
	for _, number := range []string{"", "8", "8:x", "8:-1", "8:4294967296"} {
		sys := fakeSysfs(t)
		if err := os.WriteFile(filepath.Join(sys, "class/block/sdb/dev"), []byte(number), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Scan(sys); err == nil {
			t.Errorf("Scan with device number %q = %+v, want an error", number, got)
		}
	}
}

// TestScanHere checks that the sysfs of this machine can be read.
func TestScanHere(t *testing.T) {
	if _, err := os.Stat("/sys/class/block"); err != nil {
		t.Skip("no sysfs")
	}
	if _, err := Scan("/sys"); err != nil {
		t.Error(err)
	}
}

// TestByKernel checks the order in which disks are counted.
func TestByKernel(t *testing.T) {
	want := []string{"sda", "sda1", "sda2", "sda10", "sdb", "sdb1", "sdz", "sdaa", "sdaa1", "mmcblk0"}
	got := slices.Clone(want)
	slices.Sort(got)
	slices.SortFunc(got, byKernel)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestLimit(t *testing.T) {
	var found, want, over []Device
	for _, disk := range []string{"sda", "sdb", "sdc", "sdd", "sde"} {
		for n := range 10 {
			d := Device{Name: fmt.Sprintf("%s%d", disk, n+1), Disk: disk}
			found = append(found, d)
			if disk != "sde" && n < 8 {
				want = append(want, d)
			} else {
				over = append(over, d)
			}
		}
	}
	kept, leftOut := Limit(found)
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Errorf("Limit kept (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(over, leftOut); diff != "" {
		t.Errorf("Limit left out (-want +got):\n%s", diff)
	}
}
