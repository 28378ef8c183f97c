package watch

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const usbPath = "/devices/platform/soc/3f980000.usb/usb1/1-1/1-1:1.0/host0/block/sda/sda1"

// event makes a message of the kernel about the partition sda1, with more
// properties.
func event(action, devpath string, more ...string) string {
	fields := append([]string{
		action + "@" + devpath,
		"ACTION=" + action, "DEVPATH=" + devpath, "SUBSYSTEM=block",
		"MAJOR=8", "MINOR=1", "DEVNAME=sda1", "DEVTYPE=partition", "DISKSEQ=9", "PARTN=1", "SEQNUM=2569",
	}, more...)
	return strings.Join(fields, "\x00") + "\x00"
}

// TestDecode is the contract of both parsers: run it with and without the build
// tag nogpl.
func TestDecode(t *testing.T) {
	added := Device{Name: "sda1", Major: 8, Minor: 1, Action: Add, Partition: true}
	removed, changed := added, added
	removed.Action, changed.Action = Remove, Change
	good := event("add", usbPath)
	tests := []struct {
		name string
		in   string
		want Device // zero: an error
	}{
		{"add", good, added},
		{"remove", event("remove", usbPath), removed},
		{"change", event("change", usbPath), changed},
		{"equals signs in a label", event("add", usbPath, "PARTNAME=a=b=c"), added},
		{"a label that looks like a property", event("add", usbPath, "PARTNAME=MAJOR=9"), added},
		{"at sign in the path", event("add", "/devices/platform/soc@0/32f10108.usb/usb1/1-1/block/sda/sda1"), added},
		{"property without a name", event("add", usbPath, "=x"), added},
		{"field that is no property", event("add", usbPath, "rubbish"), added},
		{"whole disk", strings.Replace(good, "DEVTYPE=partition", "DEVTYPE=disk", 1), Device{Name: "sda1", Major: 8, Minor: 1, Action: Add}},

		{"nothing", "", Device{}},
		{"one NUL", "\x00", Device{}},
		{"header alone", "add@/x", Device{}},
		{"header and NUL", "add@/x\x00", Device{}},
		{"no NUL at the end", strings.TrimSuffix(good, "\x00"), Device{}},
		{"no header", strings.TrimPrefix(good, "add@"+usbPath+"\x00"), Device{}},
		{"no at sign", strings.Replace(good, "@", "", 1), Device{}},
		{"message of udev", "libudev\x00\xfe\xed\xca\xfe" + strings.Repeat("\x00", 40), Device{}},
		{"too long", event("add", usbPath, "X="+strings.Repeat("x", maxMessage)), Device{}},
		{"unknown action", event("explode", usbPath), Device{}},
		{"action that is not about arrival", event("move", usbPath), Device{}},
		{"other subsystem", strings.Replace(good, "SUBSYSTEM=block", "SUBSYSTEM=tty", 1), Device{}},
		{"number is there twice", event("add", usbPath, "MAJOR=9"), Device{}},
		{"number is missing", strings.Replace(good, "MINOR=1", "X=1", 1), Device{}},
		{"number is none", strings.Replace(good, "MINOR=1", "MINOR=x", 1), Device{}},
		{"number is too large", strings.Replace(good, "MINOR=1", "MINOR=4294967296", 1), Device{}},
		{"name with a path", strings.Replace(good, "DEVNAME=sda1", "DEVNAME=../sda1", 1), Device{}},
		{"name with a space", strings.Replace(good, "DEVNAME=sda1", "DEVNAME=sda1 x", 1), Device{}},
		{"name with an equals sign", strings.Replace(good, "DEVNAME=sda1", "DEVNAME=a=b", 1), Device{}},
		{"name too long", strings.Replace(good, "DEVNAME=sda1", "DEVNAME="+strings.Repeat("a", maxName+1), 1), Device{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, usb, err := decode([]byte(tt.in))
			if (err != nil) != (tt.want == Device{}) {
				t.Fatalf("decode: %v, want %+v", err, tt.want)
			}
			if diff := cmp.Diff(tt.want, got); err == nil && (diff != "" || !usb) {
				t.Errorf("decode: on USB %v (-want +got)\n%s", usb, diff)
			}
		})
	}
}

func TestDecodeNotUSB(t *testing.T) {
	for _, devpath := range []string{
		"/devices/platform/mmc0/block/mmcblk0/mmcblk0p2", "/devices/virtual/block/loop0",
		"/devices/usb/block/sda", "/devices/usbx1/block/sda", "/devices/3f980000.usb/block/sda",
	} {
		if _, usb, err := decode([]byte(event("add", devpath))); usb || err != nil {
			t.Errorf("decode of %s: on USB %v, %v", devpath, usb, err)
		}
	}
}

// TestParse checks that both parsers give the same properties for what filter
// lets through.
func TestParse(t *testing.T) {
	filtered, err := filter([]byte(event("add", usbPath, "PARTNAME=a=b", "ID_X=y")))
	if err != nil {
		t.Fatal(err)
	}
	got, err := parse(filtered)
	want := map[string]string{
		"ACTION": "add", "DEVPATH": usbPath, "SUBSYSTEM": "block", "MAJOR": "8", "MINOR": "1",
		"DEVNAME": "sda1", "DEVTYPE": "partition", "SEQNUM": "2569",
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("parse: %v (-want +got)\n%s", err, diff)
	}
}

// FuzzDecode checks that no message panics, that what filter lets through loses
// nothing in the parser, and that a device has a name that is safe to use.
func FuzzDecode(f *testing.F) {
	for _, in := range []string{"", "\x00", "add@/x", "add@\x00", event("add", usbPath), event("change", usbPath, "PARTNAME=a=b", "=", "X")} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d, _, err := decode(in)
		if err != nil {
			return
		}
		if !validName(d.Name) || !utf8.ValidString(d.Name) || strings.ContainsAny(d.Name, "/.\n") {
			t.Fatalf("decode gives the name %q", d.Name)
		}
		filtered, err := filter(in)
		if err != nil {
			t.Fatal(err)
		}
		props, err := parse(filtered)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(filtered), "\x00") - 1; n != len(props) {
			t.Fatalf("parse gives %d properties of %d: %q", len(props), n, slices.Sorted(maps.Keys(props)))
		}
	})
}
