package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/report"
	"github.com/usb-updater/usb-updater/internal/watch"
)

func TestPatiently(t *testing.T) {
	errFormat := errors.New("no file system")
	wrapped := func(err error) error { return fmt.Errorf("open stick: %w", err) }
	tests := []struct {
		name    string
		answers []error // of each try; the last one repeats
		tries   int
		slept   time.Duration
		want    error
	}{
		{"at once", []error{nil}, 1, 0, nil},
		{"card comes late", []error{unix.ENOMEDIUM, unix.ENOMEDIUM, nil}, 3, 2 * openPause, nil},
		{"slow stick", []error{unix.EIO, nil}, 2, openPause, nil},
		{"first one, then the other", []error{unix.ENOMEDIUM, unix.EIO, nil}, 3, 2 * openPause, nil},
		{"never ready", []error{unix.ENOMEDIUM}, openTries, (openTries - 1) * openPause, unix.ENOMEDIUM},
		{"broken", []error{unix.EIO}, openTries, (openTries - 1) * openPause, unix.EIO},
		{"no file system", []error{errFormat}, 1, 0, errFormat},
		{"ready, no file system", []error{unix.EIO, errFormat}, 2, openPause, errFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tries, slept := 0, time.Duration(0)
			sleep := func(_ context.Context, d time.Duration) error { slept += d; return nil }
			_, err := patiently(t.Context(), sleep, func() (*mount.Stick, error) {
				answer := tt.answers[min(tries, len(tt.answers)-1)]
				tries++
				if answer != nil {
					return nil, wrapped(answer)
				}
				return &mount.Stick{}, nil
			})
			if !errors.Is(err, tt.want) || tries != tt.tries || slept != tt.slept {
				t.Errorf("patiently = %v after %d tries and %v, want %v after %d and %v", err, tries, slept, tt.want, tt.tries, tt.slept)
			}
		})
	}
}

func TestPatientlyStops(t *testing.T) {
	gone := errors.New("told to stop")
	sleep := func(context.Context, time.Duration) error { return gone }
	if _, err := patiently(t.Context(), sleep, func() (*mount.Stick, error) { return nil, unix.EIO }); !errors.Is(err, gone) {
		t.Errorf("patiently that is stopped = %v, want %v", err, gone)
	}
}

func quietAgent() *agent {
	return &agent{log: zerolog.Nop(), sleep: func(context.Context, time.Duration) error { return nil }}
}

// TestRemovalCancels checks that work which waits for a stick ends when that is
// pulled out.
func TestRemovalCancels(t *testing.T) {
	code, err := quietAgent().whilePlugged(t.Context(), func() error { return mount.ErrGone }, func(ctx context.Context) (report.Code, error) {
		<-ctx.Done()
		if cause := context.Cause(ctx); !errors.Is(cause, mount.ErrGone) {
			t.Errorf("cause = %v, want %v", cause, mount.ErrGone)
		}
		return report.Failed, ctx.Err()
	})
	if code != report.StickRemoved || !errors.Is(err, mount.ErrGone) {
		t.Errorf("whilePlugged = %s, %v, want %s", code.Name, err, report.StickRemoved.Name)
	}
}

func TestWhilePlugged(t *testing.T) {
	media := &artifact.Error{Kind: artifact.Media, Err: unix.EIO}
	tests := []struct {
		name  string
		gone  int // the check that finds it gone, 0: none
		code  report.Code
		err   error
		want  report.Code
		slept int
	}{
		{"success", 0, report.OK, nil, report.OK, 0},
		{"success, pulled out right after", 1, report.OK, nil, report.OK, 0},
		{"another failure", 0, report.SlotFailed, unix.ENOSPC, report.SlotFailed, 0},
		{"told to stop", 0, report.Canceled, context.Canceled, report.Canceled, 0},
		{"told to stop because it was pulled out", 1, report.Canceled, context.Canceled, report.StickRemoved, 0},
		{"read error", 0, report.StickFailed, media, report.StickFailed, goneTries - 1},
		{"read error of a stick that is gone", 1, report.StickFailed, media, report.StickRemoved, 0},
		{"read error a moment before it is gone", 3, report.StickFailed, media, report.StickRemoved, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := quietAgent()
			slept, checks := 0, 0
			a.sleep = func(context.Context, time.Duration) error { slept++; return nil }
			check := func() error {
				if checks++; checks == tt.gone {
					return fmt.Errorf("stick: %w", mount.ErrGone)
				}
				return nil
			}
			code, err := a.whilePlugged(t.Context(), check, func(context.Context) (report.Code, error) { return tt.code, tt.err })
			if code != tt.want || slept != tt.slept || (err == nil) != (tt.want == report.OK) {
				t.Errorf("whilePlugged = %s, %v after %d pauses, want %s after %d", code.Name, err, slept, tt.want.Name, tt.slept)
			}
		})
	}
}

func TestRunForAll(t *testing.T) {
	tests := []struct {
		name  string
		codes []report.Code
		want  report.Code
		ran   int
	}{
		{"no stick", nil, report.NoArtifact, 0},
		{"empty sticks", []report.Code{report.NoArtifact, report.NoArtifact}, report.NoArtifact, 2},
		{"one is up to date", []report.Code{report.NoArtifact, report.UpToDate, report.NoArtifact}, report.UpToDate, 3},
		{"a failure is not hidden by others", []report.Code{report.UpToDate, report.StickFailed, report.NoArtifact}, report.StickFailed, 3},
		{"the first failure", []report.Code{report.NoArtifact, report.Refused, report.StickFailed}, report.Refused, 3},
		{"installed ends it", []report.Code{report.StickFailed, report.OK, report.Refused}, report.OK, 2},
		{"pending ends it", []report.Code{report.Pending, report.OK}, report.Pending, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ran := 0
			code, err := quietAgent().runForAll(t.Context(), make([]watch.Device, len(tt.codes)), func(context.Context, watch.Device) report.Code {
				ran++
				return tt.codes[ran-1]
			})
			if diff := cmp.Diff(tt.want, code); diff != "" || ran != tt.ran {
				t.Errorf("runForAll ran %d times, want %d; %v (-want +got):\n%s", ran, tt.ran, err, diff)
			}
		})
	}
}

// TestWatchGoesOn: no stick ends the watch, neither a bad one nor one with an
// update that needs no reboot; and one that goes is not looked at.
func TestWatchGoesOn(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		end  error
		code report.Code
		want error
	}{
		{"told to stop", context.Canceled, report.OK, nil},
		{"no more events", broken, report.Failed, broken},
	} {
		events := []watch.Device{
			{Name: "sda1", Action: watch.Add}, {Name: "sda1", Action: watch.Remove}, {Name: "sdb", Action: watch.Change}, {Name: "sdc1", Action: watch.Add},
		}
		var ran []string
		code, err := quietAgent().watchEvents(t.Context(), func(context.Context) (watch.Device, error) {
			if len(events) == 0 {
				return watch.Device{}, tt.end
			}
			dev := events[0]
			events = events[1:]
			return dev, nil
		}, func(_ context.Context, dev watch.Device) report.Code {
			ran = append(ran, dev.Name)
			return []report.Code{report.OK, report.BadArtifact, report.OK}[len(ran)-1]
		})
		if diff := cmp.Diff([]string{"sda1", "sdb", "sdc1"}, ran); diff != "" {
			t.Errorf("%s: it ran for (-want +got):\n%s", tt.name, diff)
		}
		if code != tt.code || !errors.Is(err, tt.want) {
			t.Errorf("%s: watch ended with %s, %v, want %s, %v", tt.name, code.Name, err, tt.code.Name, tt.want)
		}
	}
}

// TestHeldOffIsToldOnce: until it is not any more.
func TestHeldOffIsToldOnce(t *testing.T) {
	root := t.TempDir()
	d, err := device.Open(device.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.RunDir(), noRunsFile)
	if err := os.MkdirAll(d.RunDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	a := quietAgent()
	a.log = report.NewLogger(&log, "usb-updater", zerolog.InfoLevel)
	held := a.whileHeldOff(d)
	asks := func(want bool) {
		t.Helper()
		for range 3 {
			if got := held(); got != want {
				t.Errorf("held off: %v, want %v", got, want)
			}
		}
	}
	asks(false)
	for range 2 {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		asks(true)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		asks(false)
	}
	if n := strings.Count(log.String(), path+" is there"); n != 2 {
		t.Errorf("it was told %d times, want 2:\n%s", n, log.String())
	}
}

// TestHeldOffInDoubt: what cannot be looked up holds a run off.
func TestHeldOffInDoubt(t *testing.T) {
	d, err := device.Open(device.Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(d.RunDir()), 0o700), os.WriteFile(d.RunDir(), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := heldOff(d); codeOf(err, report.OK) != report.Inhibited {
		t.Errorf("heldOff without a run directory = %v, want %s", err, report.Inhibited.Name)
	}
}
