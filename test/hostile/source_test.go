//go:build device

package hostile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/fuse"
)

// plugged describes a loop device in the device's own sysfs, as a disk that
// hangs on the device above it, in sysfs. Attributes of the disk that the
// program compares with what the kernel says are the real ones.
func (r *rig) plugged(t *testing.T, loop, above string) {
	t.Helper()
	name := filepath.Base(loop)
	real := filepath.Join("/sys/block", name)
	sys := filepath.Join(r.dev.Dir, "sys")
	disk := filepath.Join(sys, "devices", above, "block", name)
	number, err := os.ReadFile(filepath.Join(real, "dev"))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.MkdirAll(disk, 0o755), os.MkdirAll(filepath.Join(sys, "dev/block"), 0o755), os.MkdirAll(filepath.Join(sys, "class/block"), 0o755),
		os.Symlink(disk, filepath.Join(sys, "dev/block", strings.TrimSpace(string(number)))), os.Symlink(disk, filepath.Join(sys, "class/block", name)))
	for _, attribute := range []string{"dev", "diskseq", "size"} {
		b, readErr := os.ReadFile(filepath.Join(real, attribute))
		if errors.Is(readErr, os.ErrNotExist) {
			continue // an older kernel
		}
		err = errors.Join(err, readErr, os.WriteFile(filepath.Join(disk, attribute), b, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// usbDevice describes a USB device with interfaces of these classes, and
// returns where a disk on the first one is.
func (r *rig) usbDevice(t *testing.T, port string, classes ...string) string {
	t.Helper()
	dir := filepath.Join("pci0/usb1", port)
	for path, attributes := range map[string][2]string{"pci0/usb1": {"bDeviceClass", "09"}, dir: {"bDeviceClass", "00"}} {
		r.usbNode(t, path, attributes[0], attributes[1])
	}
	for i, class := range classes {
		r.usbNode(t, fmt.Sprintf("%s/%s:1.%d", dir, port, i), "bInterfaceClass", class)
	}
	return fmt.Sprintf("%s/%s:1.0/host0", dir, port)
}

func (r *rig) usbNode(t *testing.T, path, attribute, value string) {
	t.Helper()
	dir := filepath.Join(r.dev.Dir, "sys/devices", path)
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, attribute), []byte(value+"\n"), 0o600))
	if link := os.Symlink("/sys/bus/usb", filepath.Join(dir, "subsystem")); !errors.Is(link, os.ErrExist) {
		err = errors.Join(err, link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestDefenseD10Sources: the agent asks what a block device hangs on, before it
// reads a byte of it, and says with a code of its own why it refuses. What is
// refused costs the device nothing; the same disk on a plain stick installs.
func TestDefenseD10Sources(t *testing.T) {
	needLoop(t)
	tests := []struct {
		name    string
		classes []string // of the USB device's interfaces; none: it is on another bus
		others  int      // disks that are plugged in already
		want    string
		says    string
	}{
		{"stick", []string{"08"}, 0, "ok", ""},
		{"two readers in one", []string{"08", "08"}, 0, "ok", ""},
		{"fourth disk", []string{"08"}, 3, "ok", ""},
		{"keyboard, too", []string{"08", "03"}, 0, "stick-composite", `has class "03"`},
		{"network card, too", []string{"08", "02", "0a"}, 0, "stick-composite", "more than storage"},
		{"undescribed, too", []string{"08", "ff"}, 0, "stick-composite", "more than storage"},
		{"card on the board", nil, 0, "stick-not-allowed", "not allowed: want usb"},
		{"fifth disk", []string{"08"}, 4, "too-many-sticks", "more than 4 disks"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			m := newMedium(t, fuse.NewStick(files{image: fileSystem(t, files{name: r.artifact(t, "release-2", nil)})}))
			for i := range tt.others {
				r.emptyDisk(t, fmt.Sprintf("aa%d", i), r.usbDevice(t, fmt.Sprintf("1-%d", i+1), "08"))
			}
			above := "soc/mmc0"
			if tt.classes != nil {
				above = r.usbDevice(t, "1-9", tt.classes...)
			}
			r.plugged(t, m.loop, above)
			before := r.snapshot(t)
			_, end := r.agent(t, "list", m.loop)
			listed := end()
			o := r.run(t, m.loop)
			o.oneOf(t, tt.want)
			if listed.code != o.code || !strings.Contains(listed.log, tt.says) {
				t.Errorf("list = %d, want %d with %q:\n%s", listed.code, o.code, tt.says, listed.log)
			}
			if !strings.Contains(o.log, tt.says) {
				t.Errorf("the log lacks %q:\n%s", tt.says, o.log)
			}
			if installed := r.safe(t, o, "release-2"); installed != (tt.want == "ok") {
				t.Errorf("installed: %v, want %v", installed, tt.want == "ok")
			}
			if tt.want == "ok" {
				return
			}
			r.unchanged(t, before)
			if history := r.history(t); strings.Count(history, "\n") != 1 || !strings.Contains(history, `"result":"`+tt.want+`"`) {
				t.Errorf("history, want one line with %s:\n%s", tt.want, history)
			}
			_, end = r.agent(t, "status")
			if o := end(); !strings.Contains(o.out, tt.want) {
				t.Errorf("status does not tell %s:\n%s", tt.want, o.out)
			}
		})
	}
}

// emptyDisk is a disk that is there, and not for us to open.
func (r *rig) emptyDisk(t *testing.T, name, above string) {
	t.Helper()
	sys := filepath.Join(r.dev.Dir, "sys")
	disk := filepath.Join(sys, "devices", above, "block", name)
	err := errors.Join(os.MkdirAll(disk, 0o755), os.MkdirAll(filepath.Join(sys, "class/block"), 0o755),
		os.WriteFile(filepath.Join(disk, "dev"), fmt.Appendf(nil, "259:%s\n", name[2:]), 0o600),
		os.WriteFile(filepath.Join(disk, "size"), []byte("2048\n"), 0o600), os.Symlink(disk, filepath.Join(sys, "class/block", name)))
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) history(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dev.Data(), "usb-updater-history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestScanOfAHub: a hub full of sticks, of which one has what the device needs.
// All are looked at, one after the other, until that one installs.
func TestScanOfAHub(t *testing.T) {
	needLoop(t)
	r := newRig(t)
	var loops []string
	for i, content := range []files{
		{"notes.txt": []byte("x")},
		{"a.mender": []byte("no artifact")},
		{"good.mender": r.artifact(t, "release-2", nil)},
	} {
		m := newMedium(t, fuse.NewStick(files{image: fileSystem(t, content)}))
		r.plugged(t, m.loop, r.usbDevice(t, fmt.Sprintf("1-%d", i+1), "08"))
		loops = append(loops, filepath.Base(m.loop))
	}
	_, end := r.agent(t, "scan")
	o := end()
	if o.code != 0 || strings.Count(o.log, "stick found") > 3 || !r.safe(t, outcome{result: "ok", log: o.log}, "release-2") {
		t.Errorf("scan: exit status %d\n%s", o.code, o.log)
	}
	// Sticks are looked at in the order of their names; each one is told.
	for i, want := range []string{"no-artifact (10)", "bad-artifact (21)", "ok (0)"} {
		if line := fmt.Sprintf("%-10s  %s\n", loops[i], want); slices.IsSorted(loops) && !strings.Contains(o.out, line) {
			t.Errorf("scan does not print %q:\n%s", line, o.out)
		}
	}
	r.boots(t, 3)
	if _, end := r.agent(t, "boot-check"); end().code != 0 {
		t.Error("the release was not committed")
	}
	_, end = r.agent(t, "scan")
	if o := end(); o.code != 21 && o.code != 11 {
		t.Errorf("scan of a device that is up to date: exit status %d\n%s", o.code, o.log)
	}
}
