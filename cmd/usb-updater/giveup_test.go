package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/lmdb"
	"github.com/usb-updater/usb-updater/test/sim"
)

// TestLeaveLocked: another run holds the lock and hangs. The trial is left by
// the reboot alone, without a write behind the other one's back.
func TestLeaveLocked(t *testing.T) {
	for _, tt := range []struct {
		name    string
		upgrade string
		open    bool
	}{{"trial", "1", true}, {"committed", "0", false}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			d, err := sim.New(filepath.Join(dir, "device"), sim.Options{SlotSize: 6 << 20, DeviceType: "board"})
			if err != nil {
				t.Fatal(err)
			}
			image := filepath.Join(dir, "image")
			if err := errors.Join((sim.Release{Name: "release-2"}).Image(image, 4<<20), d.Flash(3, image)); err != nil {
				t.Fatal(err)
			}
			if err := d.SetEnv(map[string]string{"mender_boot_part": "3", "mender_boot_part_hex": "3", "upgrade_available": tt.upgrade}); err != nil {
				t.Fatal(err)
			}
			if n, err := d.Boot(); n != 3 || err != nil {
				t.Fatalf("slot %d boots, %v", n, err)
			}
			a := &agent{log: zerolog.Nop()}
			dev, err := device.Open(device.Options{Root: d.Dir})
			if err != nil {
				t.Fatal(err)
			}
			cause := errors.New("busy")
			_, open, err := a.leave(t.Context(), dev, nil, state.ErrLocked, cause, func() error { return nil })
			if open != tt.open || !errors.Is(err, state.ErrLocked) || errors.Is(err, cause) != tt.open {
				t.Errorf("leave: open %v, %v; want open %v", open, err, tt.open)
			}
			env, err := d.Env()
			if err != nil || env["upgrade_available"] != tt.upgrade || env["mender_boot_part"] != "3" {
				t.Errorf("environment %v, %v: it was written", env, err)
			}
		})
	}
}

// TestLostStore: of a damaged record, what is left counts.
func TestLostStore(t *testing.T) {
	b, err := lmdb.Encode(map[string][]byte{"artifact-name": []byte("release-7"), "artifact-provides": []byte("{")}, lmdb.Native())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mender-store"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := (lostStore{dir: dir}).Load(); err != nil || r.ArtifactName != "release-7" {
		t.Errorf("Load() = %q, %v, want release-7", r.ArtifactName, err)
	}
}
