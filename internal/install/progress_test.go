package install

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/install/slot"
)

// TestProgressOfInstall installs into a real slot writer, with an image whose
// second half compresses to nothing.
func TestProgressOfInstall(t *testing.T) {
	image := append(bytes.Repeat([]byte("0123456789abcdef"), 1<<17), make([]byte, 2<<20)...)
	path := filepath.Join(t.TempDir(), "part3")
	if err := os.WriteFile(path, make([]byte, len(image)+4096), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := slot.Find(path, slot.Options{AllowFile: true})
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine()
	e := m.engine(t)
	e.Slots.B = p
	e.OpenTarget = func(p slot.Partition, size int64) (Target, error) { return slot.OpenWriter(p, size, slot.ReadChanged) }
	var events []Event
	e.Report = func(ev Event) { events = append(events, ev) }
	for _, compression := range []string{"none", "gzip", "zstd"} {
		events = nil
		a := newArtifact(t, func(s *artifacttest.Spec) {
			s.Compression, s.Files = compression, []artifacttest.File{artifacttest.Bytes("root.img", image)}
		})
		plan, err := e.Plan(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write(t.Context(), plan); err != nil {
			t.Fatalf("%s: %v", compression, err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got[:len(image)], image) {
			t.Errorf("%s: the slot holds something else: %v", compression, err)
		}
		percent := -1
		for i, ev := range events {
			if ev.Step != StepWrite {
				continue
			}
			if ev.Percent() < percent || ev.Percent() > 100 || ev.Bytes > ev.Total || ev.Read > ev.ReadTotal {
				t.Errorf("%s: event %d: %+v after %d %%", compression, i, ev, percent)
			}
			percent = ev.Percent()
		}
		if n := len(events); n < 3 || events[n-1].Step != StepVerify || events[n-2].Medium == nil || percent != 100 {
			t.Errorf("%s: events end with %d %%, %+v", compression, percent, events[max(0, n-2):])
		}
	}
}

func TestEventFigures(t *testing.T) {
	for _, tt := range []struct {
		ev      Event
		percent int
		rate    int64
		left    time.Duration
	}{
		{Event{}, 0, 0, 0},
		{Event{Bytes: 50, Total: 100}, 50, 0, 0},
		{Event{Bytes: 90, Total: 100, Read: 1, ReadTotal: 4, Elapsed: 2 * time.Second}, 25, 45, 6 * time.Second},
		{Event{Bytes: 100, Total: 100, Read: 4, ReadTotal: 4, Elapsed: 2 * time.Second}, 100, 50, 0},
		// A small image is read before the first byte of it is written.
		{Event{Bytes: 0, Total: 100, Read: 4, ReadTotal: 4}, 99, 0, 0},
		{Event{Bytes: 1 << 50, Total: 1 << 51, Read: 1 << 49, ReadTotal: 1 << 50, Elapsed: 1000 * time.Hour}, 50, 1 << 50 / 3600000, 1000 * time.Hour},
	} {
		if p, r, l := tt.ev.Percent(), tt.ev.Rate(), tt.ev.Left(); p != tt.percent || r != tt.rate || l != tt.left {
			t.Errorf("%+v: %d %%, %d/s, %v left, want %d %%, %d/s, %v", tt.ev, p, r, l, tt.percent, tt.rate, tt.left)
		}
	}
}
