package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func hookProgram(t *testing.T, body string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nout="+dir+"/out\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHook(t *testing.T) {
	t.Setenv("SECRET", "x")
	path := hookProgram(t, `{ echo "$# $1 [$SECRET]"; cat; } >>$out`)
	h := NewHook(path, time.Minute)
	start, end := Event{Kind: KindStart, Run: "run"}, Event{Kind: KindEnd, Result: &OK}
	for _, e := range []Event{start, {Kind: KindProgress}, end} {
		if err := h.Send(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(filepath.Join(filepath.Dir(path), "out"))
	want := "1 start []\n" + string(start.JSON()) + "\n1 end []\n" + string(end.JSON()) + "\n"
	if err != nil || string(got) != want {
		t.Errorf("the hook was given %q, %v, want %q", got, err, want)
	}
}

func TestHookFails(t *testing.T) {
	tests := []struct {
		name, body string
		mode       os.FileMode
		dirMode    os.FileMode
		want       string
		root       bool
	}{
		{"status", "echo why >&2; exit 3", 0o755, 0o755, "event end: exit status 3: why", false},
		{"time limit", "exec sleep 1000", 0o755, 0o755, "timed out", false},
		{"flood", "seq 1 100000 >&2; exit 1", 0o755, 0o755, "exit status 1", false},
		{"not executable", "", 0o644, 0o755, "is not executable", false},
		{"writable by everybody", "", 0o777, 0o755, "hook: is writable by everybody", true},
		{"in a directory that everybody may change", "", 0o755, 0o777, "is writable by everybody", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root && os.Geteuid() != 0 {
				t.Skip("needs root: others may run what they like")
			}
			path := hookProgram(t, tt.body)
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Dir(path), tt.dirMode); err != nil {
				t.Fatal(err)
			}
			err := NewHook(path, 100*time.Millisecond).Send(t.Context(), Event{Kind: KindEnd})
			if tt.name != "time limit" { // a slow machine must not turn a failure into another
				err = NewHook(path, time.Minute).Send(t.Context(), Event{Kind: KindEnd})
			}
			if check := CheckHook(path); (check == nil) != (tt.body != "") || check != nil && !strings.Contains(check.Error(), tt.want) {
				t.Errorf("CheckHook: %v, want an error only if the program is not started", check)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 2*maxEventMessage {
				t.Errorf("Send: %v, want %q in it, and not much more", err, tt.want)
			}
		})
	}
	if err := NewHook("/nonexist/hook", time.Minute).Send(t.Context(), Event{Kind: KindEnd}); err == nil {
		t.Error("a hook that is not there is no error")
	}
	if err := CheckHook("/nonexist/hook"); err == nil {
		t.Error("CheckHook of one that is not there: no error")
	}
}

func TestConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	c := NewConsole(path)
	if err := c.Send(t.Context(), Event{Kind: KindStart}); err == nil {
		t.Error("a console that is not there is no error")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, e := range []Event{{Kind: KindStart, BlockDev: "sda1\x1b"}, {Kind: KindProgress}, {Kind: KindEnd, Result: &NoArtifact}} {
		if err := c.Send(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	want := "\rusb-updater: looking at stick sda1?\r\n\rusb-updater: no-artifact (10): The stick holds no artifact.\r\n"
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("the console shows %q, %v, want %q", got, err, want)
	}
}
