package slot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/mountinfo"
)

// Character devices that every machine has stand for volumes.
const (
	volumeA = "/dev/null" // 1:3, ubi0_0 of fakeSysfs
	volumeB = "/dev/zero" // 1:5, ubi0_1
	nothing = "/dev/full" // 1:7, no volume
)

// ubiID is the identity of one of them.
func ubiID(minor uint32) ID { return ID{UBI: true, Dev: unix.Mkdev(1, minor)} }

// fakeSysfs makes a sysfs with three volumes, the first two of which a
// ubiblock device shows, too.
func fakeSysfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put := func(path, text string) {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, path string) {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	for name, attrs := range map[string][]string{
		"ubi0_0":  {"1:3", "rootfsa"},
		"ubi0_1":  {"1:5", "rootfsb"},
		"ubi0_12": {"1:8", "data of mine"},
		"ubi1_0":  {"1:9", "rootfsa"},
	} {
		put("class/ubi/"+name+"/dev", attrs[0]+"\n")
		put("class/ubi/"+name+"/name", attrs[1]+"\n")
		put("class/ubi/"+name+"/reserved_ebs", "100\n")
		put("class/ubi/"+name+"/usable_eb_size", "126976\n")
	}
	put("class/ubi/ubi0/dev", "1:11\n")
	put("class/ubi/version", "1\n")
	link("../../devices/virtual/block/ubiblock0_0", "dev/block/254:0")
	link("../../devices/virtual/block/ubiblock0_1", "dev/block/254:1")
	link("../../devices/virtual/block/ubiblock9_9", "dev/block/254:9")
	link("../../devices/platform/mmc0/block/mmcblk0/mmcblk0p2", "dev/block/179:2")
	return dir
}

func TestFindVolume(t *testing.T) {
	sys := fakeSysfs(t)
	for path, want := range map[string]Partition{
		volumeA: {Path: volumeA, Number: 0, ID: ubiID(3), Size: 12697600},
		volumeB: {Path: volumeB, Number: 1, ID: ubiID(5), Size: 12697600},
	} {
		if got, err := Find(path, Options{Sysfs: sys}); got != want || err != nil {
			t.Errorf("Find(%s) = %+v, %v, want %+v", path, got, err, want)
		}
	}
	if _, err := Find(nothing, Options{Sysfs: sys}); !errors.Is(err, errNoVolume) {
		t.Errorf("Find of a character device that is no volume: %v", err)
	}
	if _, err := found("/dev/ubiblock0_1", ID{Block: true, Dev: unix.Mkdev(254, 1)}, Options{Sysfs: sys}); err == nil || !strings.Contains(err.Error(), "name the volume itself") {
		t.Errorf("Find of a volume's block device: %v", err)
	}
	if _, err := Find(volumeA, Options{Sysfs: t.TempDir()}); !errors.Is(err, errNoVolume) {
		t.Errorf("Find without UBI in the kernel: %v", err)
	}
	if err := os.WriteFile(filepath.Join(sys, "class/ubi/ubi0_1/reserved_ebs"), []byte("many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(volumeB, Options{Sysfs: sys}); err == nil || !strings.Contains(err.Error(), "reserved_ebs") {
		t.Errorf("Find of a volume without a size: %v", err)
	}
}

func TestVolumeName(t *testing.T) {
	for name, want := range map[string][2]int{"ubi0_0": {0, 0}, "ubi3_127": {3, 127}} {
		if d, v, ok := volumeName(name); !ok || d != want[0] || v != want[1] {
			t.Errorf("volumeName(%q) = %d, %d, %v, want %v", name, d, v, ok, want)
		}
	}
	for _, name := range []string{"", "ubi", "ubi0", "ubi_0", "ubi0_", "ubi00_1", "ubi0_01", "ubi-1_0", "ubi0_+1", "ubi0_0x", "xubi0_0", "ubi0_0_0", "ubi0_4294967296"} {
		if d, v, ok := volumeName(name); ok {
			t.Errorf("volumeName(%q) = %d, %d", name, d, v)
		}
	}
}

func TestVolumeBySource(t *testing.T) {
	u := volumes(fakeSysfs(t))
	for source, minor := range map[string]uint32{
		"ubi0_0": 3, "ubi0_1": 5, "ubi0_12": 8, "ubi1_0": 9,
		"ubi0": 3, "ubi1": 5, "ubi12": 8,
		"ubi0:rootfsa": 3, "ubi0!rootfsb": 5, "ubi1:rootfsa": 9, "ubi:rootfsb": 5, "ubi!rootfsa": 3,
		"ubi0:data of mine": 8,
		volumeB:             5,
	} {
		if got, err := u.mounted(source, "/"); got != ubiID(minor) || err != nil {
			t.Errorf("%q: %+v, %v, want 1:%d", source, got, err, minor)
		}
	}
	for _, source := range []string{
		"", "ubi", "ubi0_2", "ubi0_", "ubi_0", "ubi00_1", "ubi0_01", "ubi0_+1", "ubi2", "ubi-1", "ubi0_1x",
		"ubi0:rootfsc", "ubi0:", "ubi1:rootfsb", "ubi2:rootfsa", "ubix:rootfsa", "ubi0:rootfs", "ubi0_0:rootfsa",
		"rootfsa", "mtd:rootfsa", nothing, "ubi0_../ubi0_1",
	} {
		if got, err := u.mounted(source, "/"); !errors.Is(err, errNoVolume) {
			t.Errorf("%q: %+v, %v, want no volume", source, got, err)
		}
	}
}

// TestRootOnVolume: UBIFS names its volume in the list of mounts. A root that is
// on none is no error: the command line is asked.
func TestRootOnVolume(t *testing.T) {
	r := Root{Dir: t.TempDir(), Sysfs: fakeSysfs(t)}
	if err := os.MkdirAll(filepath.Join(r.Dir, "proc/self"), 0o755); err != nil {
		t.Fatal(err)
	}
	mounts := `22 1 0:40 / / rw - ubifs ubi0:rootfsa rw
23 1 0:41 / / rw shared:1 - ubifs ubi0:data\040of\040mine rw
24 1 0:42 / / rw - overlay ubi0:rootfsa rw
25 1 0:43 / / rw - ubifs ubi0:renamed rw
26 1 0:44 / / rw - ubifs ubi0_1 rw
`
	if err := os.WriteFile(filepath.Join(r.Dir, mountinfo.Self), []byte(mounts), 0o600); err != nil {
		t.Fatal(err)
	}
	for minor, want := range map[uint32]rooted{
		40: {ubiID(3), "ubi0:rootfsa", true},
		41: {ubiID(8), "ubi0:data of mine", true},
		42: {},
		44: {ubiID(5), "ubi0_1", true},
		45: {},
	} {
		if got, err := r.at(unix.Mkdev(0, minor)); got != want || err != nil {
			t.Errorf("0:%d: %+v, %v, want %+v", minor, got, err, want)
		}
	}
	if got, err := r.at(unix.Mkdev(0, 43)); !errors.Is(err, errNoVolume) || !strings.Contains(err.Error(), `"ubi0:renamed"`) {
		t.Errorf("a volume that has another name by now: %+v, %v", got, err)
	}
	if got, err := r.at(unix.Mkdev(254, 1)); got != (rooted{id: ubiID(5), ok: true}) || err != nil {
		t.Errorf("squashfs on ubiblock0_1: %+v, %v", got, err)
	}
	if err := os.Remove(filepath.Join(r.Dir, mountinfo.Self)); err != nil {
		t.Fatal(err)
	}
	if got, err := r.at(unix.Mkdev(0, 40)); err == nil {
		t.Errorf("without a list of mounts: %+v", got)
	}
}

// TestRootParameterVolume: what root= may say of a volume.
func TestRootParameterVolume(t *testing.T) {
	r := Root{Dir: "/", Sysfs: fakeSysfs(t)}
	for spec, minor := range map[string]uint32{"ubi0:rootfsb": 5, "ubi0_0": 3, "ubi:rootfsb": 5, "ubi1": 5, volumeA: 3} {
		if got, err := r.identify(spec); got != ubiID(minor) || err != nil {
			t.Errorf("root=%s: %+v, %v, want 1:%d", spec, got, err, minor)
		}
	}
	for _, spec := range []string{"ubi0:rootfsc", "ubi3_0", nothing} {
		if got, err := r.identify(spec); !errors.Is(err, errNoVolume) {
			t.Errorf("root=%s: %+v, %v", spec, got, err)
		}
	}
}

// TestBlockDeviceOfVolume: squashfs on /dev/ubiblock0_1 runs from ubi0_1.
func TestBlockDeviceOfVolume(t *testing.T) {
	sys := fakeSysfs(t)
	r := Root{Dir: "/", Sysfs: sys}
	for dev, want := range map[uint64]ID{
		unix.Mkdev(254, 0): ubiID(3),
		unix.Mkdev(254, 1): ubiID(5),
		unix.Mkdev(179, 2): {Block: true, Dev: unix.Mkdev(179, 2)},
		unix.Mkdev(8, 1):   {Block: true, Dev: unix.Mkdev(8, 1)},
	} {
		if got, err := r.volume(ID{Block: true, Dev: dev}); got != want || err != nil {
			t.Errorf("%d:%d: %+v, %v, want %+v", unix.Major(dev), unix.Minor(dev), got, err, want)
		}
	}
	if got, err := r.volume(ID{Block: true, Dev: unix.Mkdev(254, 9)}); !errors.Is(err, errNoVolume) {
		t.Errorf("a volume that is gone: %+v, %v", got, err)
	}
}

func TestVolumeMounted(t *testing.T) {
	sys := fakeSysfs(t)
	list := filepath.Join(t.TempDir(), "mountinfo")
	mounts := `27 1 0:30 / / rw - ubifs ubi0:rootfsa rw
28 1 0:31 / /old rw - ubifs ubi0:renamed rw
29 1 0:32 / /gone rw - ubifs /dev/ubi7_7 rw
30 1 254:1 / /media/b\040c ro - squashfs /dev/ubiblock0_1 ro
31 1 0:33 / /two rw - ubifs ubi0_1 rw
32 1 179:2 / /emmc rw - ext4 /dev/mmcblk0p2 rw
33 1 0:34 / /not rw - tmpfs ubi0_12 rw
`
	if err := os.WriteFile(list, []byte(mounts), 0o600); err != nil {
		t.Fatal(err)
	}
	for minor, want := range map[uint32]string{3: "/", 5: "/media/b c", 8: "", 9: ""} {
		if got, err := volumes(sys).where(ubiID(minor), sys, list); got != want || err != nil {
			t.Errorf("volume 1:%d: %q, %v, want %q", minor, got, err, want)
		}
	}
	if err := os.WriteFile(list, []byte("rubbish\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := volumes(sys).where(ubiID(3), sys, list); err == nil {
		t.Error("a list that cannot be read: no error")
	}
}
