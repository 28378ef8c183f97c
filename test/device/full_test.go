//go:build device

package device

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// TestFullDataDirectory leaves ever more room in the data directory until an
// installation has enough. Without, it says so and nothing is armed; and once
// there is room again the device installs.
func TestFullDataDirectory(t *testing.T) {
	need(t, "fw_printenv")
	d := newDevice(t, 24*mib, "")
	image := filepath.Join(t.TempDir(), "release-2.ext4")
	if err := release("release-2", "").Image(image, 8*mib); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "release-2.mender")
	write(t, path, artifacttest.Spec{
		Name: "release-2", DeviceTypes: []string{deviceType},
		Scripts: []artifacttest.Script{{Name: "ArtifactInstall_Enter_00", Data: []byte("#!/bin/sh\n")}},
		Files:   []artifacttest.File{{Name: "image", Size: 8 * mib, Open: func() (io.Reader, error) { return os.Open(image) }}},
	})
	if err := unix.Mount("none", d.Data(), "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.Data(), 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(d.Data(), "device_type"), []byte("device_type="+deviceType+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(d.Data(), "filler")
	const pages = 64 // more than any installation needs
	for free := range pages {
		fill(t, filler, free)
		code, stderr, _ := mender(t, d, "install", path)
		if code == 0 {
			if free == 0 {
				t.Error("an installation needs no room: this test fills the wrong directory")
			}
			break
		}
		if code != 1 || !strings.Contains(stderr, "no space left on device") || strings.Contains(stderr, "internal error") {
			t.Fatalf("%d pages free: exit status %d: %s", free, code, stderr)
		}
		if env := printenv(t, d); !strings.Contains(env, "upgrade_available=0") {
			t.Fatalf("%d pages free: armed:\n%s", free, env)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	boot(t, d, 3)
	if code, stderr, _ := mender(t, d, "commit"); code != 0 {
		t.Errorf("commit: exit status %d: %s", code, stderr)
	}
	boot(t, d, 3)
}

// fill takes all room of a file system but some pages.
func fill(t *testing.T, filler string, free int) {
	t.Helper()
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, os.Getpagesize())
	size := int64(0)
	for {
		n, err := f.Write(page)
		size += int64(n)
		if err != nil {
			break // full
		}
	}
	if err := f.Truncate(size - int64(free)*int64(len(page))); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
