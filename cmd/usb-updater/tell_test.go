package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/config"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/report"
	"github.com/usb-updater/usb-updater/test/sim"
)

// simulated makes a device that runs release-1, with the agent's configuration.
func simulated(t *testing.T, conf, hook string) *sim.Device {
	t.Helper()
	dir := t.TempDir()
	d, err := sim.New(dir, sim.Options{SlotSize: 6 << 20, DeviceType: "board"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	image := filepath.Join(t.TempDir(), "image")
	release := sim.Release{Name: "release-1", Files: map[string]sim.File{
		"etc/usb-updater/usb-updater.conf": {Content: conf, Mode: 0o600},
		"etc/usb-updater/hook":             {Content: hook, Mode: 0o755},
	}}
	if err := errors.Join(release.Image(image, 4<<20), d.Flash(2, image)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Boot(); err != nil {
		t.Fatal(err)
	}
	return d
}

func writeArtifact(t *testing.T, path string, spec artifacttest.Spec) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(artifacttest.Write(f, spec), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestLogIsBounded: a stick with 10,000 names, each as long as it gets, makes a
// log of a few lines and a history of one.
func TestLogIsBounded(t *testing.T) {
	d := simulated(t, `{"AllowUnsigned": true}`, "")
	stick := t.TempDir()
	first := filepath.Join(stick, "first.mender")
	if err := os.WriteFile(first, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 10000 {
		name := fmt.Sprintf("%05d\x1b[2J\n%s.mender", i, strings.Repeat("x", 200))
		if err := os.Link(first, filepath.Join(stick, name)); err != nil {
			t.Fatal(err)
		}
	}
	var out, log bytes.Buffer
	code := run(t.Context(), []string{"--root", d.Dir, "run", stick}, &out, &log)
	lines := strings.Count(log.String(), "\n")
	if code != report.BadArtifact.Number || lines > 40 || log.Len() > 20<<10 || strings.Contains(log.String(), "\x1b") {
		t.Errorf("run = %d with %d lines, %d bytes, want %d with at most 40 lines, 20 KiB:\n%.2000q", code, lines, log.Len(), report.BadArtifact.Number, log.String())
	}
	history, err := os.ReadFile(filepath.Join(d.Data(), "usb-updater-history.jsonl"))
	if err != nil || bytes.Count(history, []byte("\n")) != 1 || len(history) > 4<<10 {
		t.Errorf("history has %d bytes, %v, want one line", len(history), err)
	}
}

// TestProgressIsBounded: however many files a payload has, the log gets a line
// for each tenth.
func TestProgressIsBounded(t *testing.T) {
	var log bytes.Buffer
	a := &agent{name: verbRun, log: report.NewLogger(&log, "usb-updater", zerolog.InfoLevel)}
	tell := a.progress()
	const files = 1000
	for i := range files {
		for _, n := range []int64{0, 50, 100} {
			tell(install.Event{Step: install.StepWrite, Module: "app", Bytes: n, Total: 100, Read: int64(i), ReadTotal: files})
		}
	}
	for range files { // without what tells how much there is
		tell(install.Event{Step: install.StepWrite, Module: "app", Bytes: 0, Total: 100})
		tell(install.Event{Step: install.StepWrite, Module: "app", Bytes: 100, Total: 100})
	}
	if n := strings.Count(log.String(), "\n"); n > 12 {
		t.Errorf("%d lines, want at most 12:\n%.2000s", n, log.String())
	}
}

// TestFollowRun follows a real run at its socket, to its end. The hook
// holds that up until the client is there.
func TestFollowRun(t *testing.T) {
	there := filepath.Join(t.TempDir(), "there")
	d := simulated(t, `{"AllowUnsigned": true, "Hook": "/etc/usb-updater/hook", "HookTimeoutSeconds": 7}`,
		"#!/bin/sh\nuntil test -e "+there+"; do sleep 0.01; done\n")
	stick := t.TempDir()
	writeArtifact(t, filepath.Join(stick, "a.mender"), artifacttest.Spec{
		Name: "release-2", DeviceTypes: []string{"board"}, Files: []artifacttest.File{artifacttest.Bytes("image", bytes.Repeat([]byte("x"), 2<<20))},
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type answer struct {
		kinds []report.Kind
		last  report.Event
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		var got answer
		defer func() { answers <- got }()
		conn, err := dialWhenThere(ctx, filepath.Join(d.Dir, "run/usb-updater", report.SocketName))
		if err != nil {
			got.err = err
			return
		}
		defer conn.Close()
		dec := json.NewDecoder(conn)
		for {
			var e report.Event
			if err := dec.Decode(&e); err != nil {
				return // the run has ended
			}
			if got.kinds, got.last = append(got.kinds, e.Kind), e; len(got.kinds) == 1 {
				got.err = os.WriteFile(there, nil, 0o600)
			}
		}
	}()
	var log bytes.Buffer
	if code := run(ctx, []string{"--root", d.Dir, "run", stick}, &log, &log); code != 0 {
		t.Fatalf("run = %d:\n%s", code, log.String())
	}
	got := <-answers
	if got.err != nil || got.last.Kind != report.KindEnd || got.last.Result == nil || *got.last.Result != report.OK || !got.last.Waiting {
		t.Errorf("the client heard %v, last %+v, %v, want the end", got.kinds, got.last, got.err)
	}
	if got.last.Artifact != "release-2" || got.last.Slot != "B" {
		t.Errorf("the end is about %q, slot %q, want release-2, B", got.last.Artifact, got.last.Slot)
	}
}

// lamp is a light: it notes that it was given back.
type lamp struct{ closed atomic.Bool }

func (*lamp) Send(context.Context, report.Event) error { return nil }

func (l *lamp) Close() error { l.closed.Store(true); return nil }

// TestLightEndsWithTheStick: a light shows the end until the stick is pulled
// out. If that was the end, it is shown for a moment.
func TestLightEndsWithTheStick(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		gone    int32 // the check that finds it gone
		atLeast time.Duration
	}{
		"pulled out while it is shown": {3, 0},
		"pulled out before":            {1, canceledLED},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			light, lit, checks := &lamp{}, &atomic.Bool{}, &atomic.Int32{}
			lit.Store(true)
			a := quietAgent()
			a.tell = &teller{
				lit: lit, ledFor: time.Hour,
				sinks: report.NewSinks(time.Now, func(string, error) {}, report.Named{Name: "led", Sink: light}),
				present: func() error {
					if checks.Add(1) >= tt.gone {
						return mount.ErrGone
					}
					return nil
				},
			}
			begin, done := time.Now(), make(chan struct{})
			go func() { defer close(done); a.hush(t.Context()) }()
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatal("the light outlives the stick")
			}
			if took := time.Since(begin); took < tt.atLeast || !light.closed.Load() {
				t.Errorf("it was shown for %v and given back: %v; want %v and true", took, light.closed.Load(), tt.atLeast)
			}
		})
	}
}

// TestSinksThatAreAskedFor: a simulated device does not write on the screen of
// the machine that it is simulated on.
func TestSinksThatAreAskedFor(t *testing.T) {
	for root, want := range map[string]string{"/": "status console plymouth", t.TempDir(): "status console"} {
		d, err := device.Open(device.Options{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		d.Agent = config.Agent{Console: true, Plymouth: true}
		var names []string
		for _, s := range sinks(d, &atomic.Bool{}) {
			names = append(names, s.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("with the root %s, those that hear of a run are %q, want %q", root, got, want)
		}
	}
}

// dialWhenThere connects as soon as there is a socket.
func dialWhenThere(ctx context.Context, path string) (net.Conn, error) {
	for {
		conn, err := net.Dial("unix", path)
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
	}
}
