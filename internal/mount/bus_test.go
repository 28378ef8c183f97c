package mount

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// addDevice makes a device with a subsystem in a fake sysfs.
func addDevice(t *testing.T, sys sysfs, dir, subsystem string, attributes map[string]string) {
	t.Helper()
	dir = filepath.Join(string(sys), "devices", dir)
	err := os.MkdirAll(dir, 0o700)
	if subsystem != "" {
		err = errors.Join(err, os.Symlink("/sys/bus/"+subsystem, filepath.Join(dir, "subsystem")))
	}
	for name, value := range attributes {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sourceSysfs makes the sysfs of fakeSysfs with buses: sda is a stick behind a
// hub that has a network card, too, and mmcblk0 is a card on the board. The
// classes are those of the stick's interfaces.
func sourceSysfs(t *testing.T, classes ...string) sysfs {
	t.Helper()
	sys := sysfs(t.TempDir())
	device := map[string]string{"bDeviceClass": "00"}
	iface := func(class string) map[string]string { return map[string]string{"bInterfaceClass": class} }
	addDevice(t, sys, "pci0/usb1", "usb", device)
	addDevice(t, sys, "pci0", "pci", nil)
	addDevice(t, sys, "pci0/usb1/1-1", "usb", device)
	addDevice(t, sys, "pci0/usb1/1-1/1-1:1.0", "usb", iface("09"))
	addDevice(t, sys, "pci0/usb1/1-1/1-1.2", "usb", device)
	addDevice(t, sys, "pci0/usb1/1-1/1-1.2/1-1.2:1.0", "usb", iface("02"))
	const stick = "pci0/usb1/1-1/1-1.1"
	addDevice(t, sys, stick, "usb", device)
	for i, class := range classes {
		addDevice(t, sys, stick+"/1-1.1:1."+string(rune('0'+i)), "usb", iface(class))
	}
	block := map[string]string{"8:1": stick + "/1-1.1:1.0/host0/block/sda/sda1", "179:2": "soc/mmc0/block/mmcblk0/mmcblk0p2"}
	addDevice(t, sys, stick+"/1-1.1:1.0/host0", "scsi", nil)
	addDevice(t, sys, "soc/mmc0", "mmc", nil)
	for number, dir := range block {
		addDevice(t, sys, dir, "block", map[string]string{"dev": number, "partition": "1"})
		if err := errors.Join(os.MkdirAll(filepath.Join(string(sys), "dev/block"), 0o700),
			os.Symlink(filepath.Join(string(sys), "devices", dir), filepath.Join(string(sys), "dev/block", number))); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

func TestCheckSource(t *testing.T) {
	stick, card := unix.Mkdev(8, 1), unix.Mkdev(179, 2)
	usb := []string{"usb"}
	tests := []struct {
		name      string
		classes   []string
		dev       uint64
		buses     []string
		composite bool
		want      error
	}{
		{"stick", []string{"08"}, stick, usb, false, nil},
		{"two readers in one", []string{"08", "08"}, stick, usb, false, nil},
		{"any bus", []string{"08"}, stick, nil, false, nil},
		{"also a keyboard", []string{"08", "03"}, stick, usb, false, ErrComposite},
		{"a keyboard first", []string{"03", "08"}, stick, usb, false, ErrComposite},
		{"also a network card", []string{"08", "02", "0a"}, stick, usb, false, ErrComposite},
		{"also something undescribed", []string{"08", "ff"}, stick, usb, false, ErrComposite},
		{"no class", []string{"08", ""}, stick, usb, false, ErrComposite},
		{"composite, any bus", []string{"08", "03"}, stick, nil, false, ErrComposite},
		{"composite, allowed", []string{"08", "03"}, stick, usb, true, nil},
		{"card on the board", []string{"08"}, card, usb, false, ErrBus},
		{"card, allowed", []string{"08"}, card, []string{"usb", "mmc"}, false, nil},
		{"a part of a bus's name", []string{"08"}, stick, []string{"us", "usb1"}, false, ErrBus},
		{"gone", []string{"08"}, unix.Mkdev(8, 99), usb, false, fs.ErrNotExist},
		{"anything goes", nil, unix.Mkdev(8, 99), nil, true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := sourceSysfs(t, tt.classes...).checkSource(tt.dev, tt.buses, tt.composite); !errors.Is(err, tt.want) {
				t.Errorf("checkSource = %v, want %v", err, tt.want)
			}
		})
	}
}

// TestInterfacesUnknown checks that a USB device whose interfaces cannot be
// told is no stick.
func TestInterfacesUnknown(t *testing.T) {
	sys := sourceSysfs(t, "08")
	iface := filepath.Join(string(sys), "devices/pci0/usb1/1-1/1-1.1/1-1.1:1.0")
	if err := os.Remove(filepath.Join(iface, "bInterfaceClass")); err != nil {
		t.Fatal(err)
	}
	if err := sys.checkSource(unix.Mkdev(8, 1), nil, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a class: %v, want %v", err, fs.ErrNotExist)
	}
	if err := onlyStorage(t.TempDir()); !errors.Is(err, ErrComposite) {
		t.Errorf("without interfaces: %v, want %v", err, ErrComposite)
	}
}
