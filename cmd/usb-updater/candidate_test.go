package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/report"
)

// TestStickThatLies: what is installed must be what was chosen. A stick whose
// second read differs from the first in any byte before the payload is refused
// because of that, and not for what its new bytes say: nothing may parse them
// that was not parsed by the inspector first.
func TestStickThatLies(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.mender")
	pack := func(spec artifacttest.Spec) []byte {
		t.Helper()
		spec.Files = []artifacttest.File{artifacttest.Bytes("image", []byte("content"))}
		var b bytes.Buffer
		if err := artifacttest.Write(&b, spec); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	honest := pack(artifacttest.Spec{Name: "release-2"})
	write(honest)
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
	art, file, err := reopen(t.Context(), profile{stall: time.Minute}, stick, c)
	if err != nil {
		t.Fatalf("the same bytes again: %v", err)
	}
	if verified, err := art.Copy(t.Context(), func(artifact.File) (io.Writer, error) { return io.Discard, nil }); err != nil || !verified.Valid() {
		t.Errorf("the payload behind the same bytes: %v", err)
	}
	file.Close()

	type lies = map[string][]byte
	other := lies{
		"another release":        pack(artifacttest.Spec{Name: "release-1"}),
		"other provides":         pack(artifacttest.Spec{Name: "release-2", Provides: map[string]string{"rootfs-image.version": "99"}}),
		"other compression only": pack(artifacttest.Spec{Name: "release-2", Compression: "none"}),
		// A parser would have another word for each of these.
		"empty":           nil,
		"cut":             honest[:c.header.RawSize-1],
		"zeros":           make([]byte, len(honest)),
		"no archive":      bytes.Repeat([]byte("no tar"), len(honest)),
		"another version": bytes.Replace(honest, []byte(`"version":3`), []byte(`"version":9`), 1),
	}
	for at := int64(0); at < c.header.RawSize; at += 100 {
		flipped := bytes.Clone(honest)
		flipped[at] ^= 0x40
		other[fmt.Sprintf("byte %d", at)] = flipped
	}
	for name, b := range other {
		write(b)
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

// TestInspectorThatLies: an inspector that was taken over may say anything of
// what it read. It gets the agent neither to allocate more than an artifact may
// have before its payload, nor to take one header for another.
func TestInspectorThatLies(t *testing.T) {
	dir := t.TempDir()
	var b bytes.Buffer
	err := artifacttest.Write(&b, artifacttest.Spec{Name: "release-2", Files: []artifacttest.File{artifacttest.Bytes("image", []byte("content"))}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.mender"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	stick, err := mount.Open(t.Context(), dir, mount.Options{AllowDirectory: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stick.Close()
	told := inspect(t.Context(), stick, mount.Entry{Path: "a.mender"}, nil)
	if told.err != nil {
		t.Fatal(told.err)
	}
	for name, lie := range map[string]func(h *artifact.Header){
		"another name":    func(h *artifact.Header) { h.Name = "release-3" },
		"another digest":  func(h *artifact.Header) { h.RawDigest[0]++ },
		"another payload": func(h *artifact.Header) { h.Files[0].SHA256[0]++ },
		"less":            func(h *artifact.Header) { h.RawSize--; h.RawDigest = sha256.Sum256(b.Bytes()[:h.RawSize]) },
		"more":            func(h *artifact.Header) { h.RawSize++; h.RawDigest = sha256.Sum256(b.Bytes()[:h.RawSize]) },
		"nothing":         func(h *artifact.Header) { h.RawSize, h.RawDigest = 0, sha256.Sum256(nil) },
		"less than none":  func(h *artifact.Header) { h.RawSize = -1 },
		"too much":        func(h *artifact.Header) { h.RawSize = artifact.MaxRawSize + 1 },
		"endless":         func(h *artifact.Header) { h.RawSize = math.MaxInt64 },
	} {
		c, header := told, *told.header
		header.Files = slices.Clone(header.Files)
		lie(&header)
		c.header = &header
		if _, _, err := reopen(t.Context(), profile{stall: time.Minute}, stick, c); !errors.Is(err, errStickChanged) {
			t.Errorf("%s: %v, want errStickChanged", name, err)
		}
	}
}
