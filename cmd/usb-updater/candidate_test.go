package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/report"
)

// TestStickThatLies: what is installed must be what was chosen. A stick that
// returns another artifact at the second read, or the same one with other
// bytes before the payload, is refused.
func TestStickThatLies(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.mender")
	write := func(spec artifacttest.Spec) {
		t.Helper()
		spec.Files = []artifacttest.File{artifacttest.Bytes("image", []byte("content"))}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(artifacttest.Write(f, spec), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	first := artifacttest.Spec{Name: "release-2"}
	write(first)
	stick, err := mount.Open(t.Context(), dir, mount.Options{AllowDirectory: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stick.Close()
	listing, err := stick.Candidates(t.Context())
	if err != nil || len(listing.Entries) != 1 {
		t.Fatalf("candidates: %+v, %v", listing, err)
	}
	c := inspect(t.Context(), stick, listing.Entries[0], nil)
	if c.err != nil {
		t.Fatal(c.err)
	}
	_, file, err := reopen(t.Context(), profile{stall: time.Minute}, stick, c)
	if err != nil {
		t.Fatalf("the same bytes again: %v", err)
	}
	file.Close()

	for name, spec := range map[string]artifacttest.Spec{
		"another release":        {Name: "release-1"},
		"other provides":         {Name: "release-2", Provides: map[string]string{"rootfs-image.version": "99"}},
		"other compression only": {Name: "release-2", Compression: "none"},
	} {
		write(spec)
		_, _, err := reopen(t.Context(), profile{stall: time.Minute}, stick, c)
		if !errors.Is(err, errStickChanged) || codeOf(err, report.Failed) != report.StickLied {
			t.Errorf("%s: %v, want errStickChanged", name, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := reopen(t.Context(), profile{stall: time.Minute}, stick, c); err == nil {
		t.Error("a file that is gone is opened")
	}
}
