package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/mount"
)

// TestNotePlugged: the list has what is plugged in, and there is none where that
// cannot be told: then nothing is new.
func TestNotePlugged(t *testing.T) {
	root := t.TempDir()
	d := device.OpenBroken(device.Options{Root: root})
	a := &agent{log: zerolog.Nop()}
	list := filepath.Join(d.RunDir(), pluggedFile)
	disk := filepath.Join(root, "sys/devices/usb1/block/sda")
	numbers := filepath.Join(root, "sys/dev/block")
	for _, dir := range []string{disk, numbers} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(disk, filepath.Join(numbers, "8:0")); err != nil {
		t.Fatal(err)
	}
	a.notePlugged(d)
	want, err := mount.Appearances(d.Path("/sys"))
	if err != nil || len(want) != 1 {
		t.Fatalf("Appearances = %q, %v", want, err)
	}
	if got, err := os.ReadFile(list); err != nil || strings.TrimSpace(string(got)) != want[0] {
		t.Errorf("the list is %q (%v), want %q", got, err, want)
	}
	if err := os.WriteFile(filepath.Join(disk, "diskseq"), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.notePlugged(d)
	if got, err := os.ReadFile(list); !os.IsNotExist(err) {
		t.Errorf("a list is left: %q, %v", got, err)
	}
	if a.pluggedIn(d, &mount.Stick{Name: root}) {
		t.Error("without a list a stick is new")
	}
}
