//go:build device

package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/test/tier"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/report"
	"github.com/usb-updater/usb-updater/test/fuse"
	"github.com/usb-updater/usb-updater/test/sim"
)

// TestDefenseD07SlowStick: a stick that does not show in time what it holds, or
// that stops in the middle of an installation, ends the run, and the old slot
// stays. The limits are shorter here than in the field.
func TestDefenseD07SlowStick(t *testing.T) {
	tier.Device.Need(t, "root", "/dev/fuse")
	const (
		short = 300 * time.Millisecond
		long  = time.Minute
		size  = 512 << 10
	)
	image := filepath.Join(t.TempDir(), "image")
	unsigned := map[string]sim.File{"etc/usb-updater/usb-updater.conf": {Content: `{"AllowUnsigned": true}`, Mode: 0o644}}
	if err := (sim.Release{Name: "release-1", Files: unsigned}).Image(image, size); err != nil {
		t.Fatal(err)
	}
	payload, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	var update bytes.Buffer
	err = artifacttest.Write(&update, artifacttest.Spec{
		Name: "release-2", DeviceTypes: []string{"board"}, Compression: "none",
		Files: []artifacttest.File{artifacttest.Bytes("image", payload)},
	})
	if err != nil {
		t.Fatal(err)
	}
	hang := func(pass int, from int64) func(*fuse.Stick, chan struct{}) {
		return func(s *fuse.Stick, release chan struct{}) {
			s.Read = func(path string, offset int64, n int) error {
				if s.Opens(path) == pass && offset+int64(n) > from {
					<-release
					return unix.EIO
				}
				return nil
			}
		}
	}
	for name, tt := range map[string]struct {
		spoil       func(*fuse.Stick, chan struct{})
		scan, stall time.Duration
		code        report.Code
		says        string
	}{
		"hangs at the first byte": {hang(1, 0), short, long, report.StickFailed, "did not show what it holds within 300ms"},
		"hangs as it is listed": {func(s *fuse.Stick, release chan struct{}) {
			s.Names = func(string, []fuse.Entry) ([]fuse.Entry, error) { <-release; return nil, unix.EIO }
		}, short, long, report.StickFailed, "did not show what it holds within 300ms"},
		"gives a little at a time": {func(s *fuse.Stick, release chan struct{}) {
			s.Read = func(string, int64, int) error {
				select { // slow, and never silent for long
				case <-time.After(short / 2):
				case <-release:
				}
				return nil
			}
		}, short, long, report.StickFailed, "did not show what it holds within 300ms"},
		"hangs at the second look":  {hang(2, 0), long, short, report.StickFailed, "did not answer for 300ms"},
		"hangs in the payload":      {hang(2, 200<<10), long, short, report.StickFailed, "did not answer for 300ms"},
		"hangs at its second entry": {lookupHangs, long, short, report.StickFailed, "did not answer for 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			dev, err := sim.New(filepath.Join(t.TempDir(), "device"), sim.Options{SlotSize: 1 << 20, DeviceType: "board"})
			if err == nil {
				err = dev.Flash(2, image)
			}
			if err == nil {
				_, err = dev.Boot()
			}
			if err != nil {
				t.Fatal(err)
			}
			stick := fuse.NewStick(map[string][]byte{"a.mender": update.Bytes(), "b.mender": update.Bytes(), "c.mender": update.Bytes()})
			release := make(chan struct{})
			tt.spoil(stick, release)
			dir := t.TempDir()
			server, err := fuse.Mount(dir, stick)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			defer close(release)
			// An agent that waits for ever would take this process, and so the
			// server that it waits for, along.
			watchdog := time.AfterFunc(long, func() { _ = server.Pull() })
			defer watchdog.Stop()
			var log bytes.Buffer
			a := &agent{
				stdout: report.NewResults(io.Discard), log: report.NewLogger(&log, "usb-updater", zerolog.InfoLevel), opts: device.Options{Root: dev.Dir},
				args: []string{dir}, scanLimit: tt.scan, stallLimit: tt.stall,
			}
			started := time.Now()
			code, err := a.update(t.Context())
			if took := time.Since(started); took > long/2 {
				t.Errorf("it took %v, with a limit of %v", took, short)
			}
			if code != tt.code || err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("update = %s, %v, want %s, %q\n%s", code.Name, err, tt.code.Name, tt.says, log.String())
			}
			if env, err := dev.Env(); err != nil || env["upgrade_available"] != "0" {
				t.Errorf("environment %v, %v: it must not be armed", env, err)
			}
			if slot, err := dev.Boot(); err != nil || slot != 2 {
				t.Errorf("slot %d comes up (%v), want 2", slot, err)
			}
		})
	}
}

// lookupHangs is a stick that does not find its file again after it was read.
func lookupHangs(s *fuse.Stick, release chan struct{}) {
	var seen atomic.Bool
	s.Read = func(string, int64, int) error { seen.Store(true); return nil }
	s.Attr = func(path string, _ int, e fuse.Entry) (fuse.Entry, error) {
		if path == "a.mender" && seen.Load() {
			<-release
			return e, unix.EIO
		}
		return e, nil
	}
}
