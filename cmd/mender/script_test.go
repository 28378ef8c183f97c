package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/test/sim"
	"github.com/usb-updater/usb-updater/test/simscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mender": main, "mender-update": main})
}

func TestScript(t *testing.T) { simscript.Run(t, "testdata/script") }

func TestParse(t *testing.T) {
	tests := []struct {
		args []string
		want options
	}{
		{[]string{"-install", "F"}, options{command: cmdInstall, args: []string{"F"}}},
		{[]string{"--install", "F"}, options{command: cmdInstall, args: []string{"F"}}},
		{[]string{"install", "F"}, options{command: cmdInstall, args: []string{"F"}}},
		{[]string{"-install=F"}, options{command: cmdInstall, args: []string{"F"}}},
		{[]string{"-rootfs", "F"}, options{command: cmdInstall, args: []string{"F"}}},
		{[]string{"-log-level", "debug", "-install", "F"}, options{command: cmdInstall, args: []string{"F"}, logLevel: "debug"}},
		{[]string{"install", "F", "--reboot-exit-code"}, options{command: cmdInstall, args: []string{"F"}, rebootExitCode: true}},
		{[]string{"install", "commit"}, options{command: cmdInstall, args: []string{"commit"}}},
		{[]string{"-config", "-commit", "show-artifact"}, options{command: cmdShowArtifact, config: "-commit"}},
		{[]string{"--config=X", "-b", "Y", "-d=Z", "commit"}, options{command: cmdCommit, config: "X", fallbackConfig: "Y", data: "Z"}},
		{[]string{"-no-syslog", "-skipverify", "-E", "c.pem", "-F", "-rollback"}, options{command: cmdRollback, trustedCerts: "c.pem", skipVerify: true}},
		{[]string{"resume", "--stop-before", "Cleanup", "-stop-before=ArtifactCommit_Leave"}, options{command: cmdResume, stopBefore: []string{"Cleanup", "ArtifactCommit_Leave"}}},
		{[]string{"install", "F", "--progress=json"}, options{command: cmdInstall, args: []string{"F"}, progress: "json"}},
		{[]string{"install", "--", "-F"}, options{command: cmdInstall, args: []string{"-F"}}},
		{[]string{"--", "install", "-F"}, options{command: cmdInstall, args: []string{"-F"}}},
		{[]string{"install", "F", "--reboot-exit-code=true", "-skipverify=0"}, options{command: cmdInstall, args: []string{"F"}, rebootExitCode: true}},
		{[]string{"-h"}, options{command: cmdHelp}},
		{[]string{"-version"}, options{command: cmdVersion}},
		{[]string{"--version", "show-artifact"}, options{command: cmdVersion, args: []string{"show-artifact"}}},
		{nil, options{command: cmdHelp}},
	}
	for _, tt := range tests {
		got, err := parse(tt.args)
		if err != nil {
			t.Errorf("parse(%q): %v", tt.args, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(options{})); diff != "" {
			t.Errorf("parse(%q) (-want +got):\n%s", tt.args, diff)
		}
	}
	for _, args := range [][]string{
		{"install"},
		{"install", "a", "b"},
		{"commit", "extra"},
		{"frobnicate"},
		{"-frobnicate"},
		{"--config"},
		{"-commit", "-rollback"},
		{"daemon"},
		{"-daemon"},
		{"--reboot-exit-code=1", "commit"},
		{"--log-level", "info"},
		{"install", "F", "--stop-before", "Bogus"},
		{"install", "F", "--stop-before"},
		{"install", "F", "--progress", "xml"},
		{"--", "-commit"},
		{"--"},
		{"commit", "--no-syslog=perhaps"},
		{"commit", "--no-syslog="},
		{"install", "--", "F", "G"},
		{"commit", "--reboot-exit-code"},
		{"show-artifact", "--stop-before", "Cleanup"},
		{"--progress", "none", "rollback"},
		{"-=/dir", "show-artifact"},
		{"--=x", "commit"},
		{"--root", "", "commit"},
		{"--data=", "commit"},
		{"-c", "", "commit"},
		{"commit", "-passphrase-file="},
	} {
		if o, err := parse(args); err == nil {
			t.Errorf("parse(%q) = %+v, want an error", args, o)
		}
	}
}

// TestEnded: a signal that came when all was done changes no exit code.
func TestEnded(t *testing.T) {
	failed := errors.New("failed")
	for _, tt := range []struct {
		code int
		err  error
		want bool
	}{
		{exitOK, nil, false},
		{exitReboot, nil, false},
		{exitNothingPending, nil, false},
		{exitFailed, nil, false},
		{exitFailed, errors.Join(failed, install.ErrCommittedWithErrors), false},
		{exitFailed, failed, true},
	} {
		if got := ended(tt.code, tt.err); got != tt.want {
			t.Errorf("ended(%d, %v) = %t", tt.code, tt.err, got)
		}
	}
}

// TestSignal: a run that is told to stop while it waits for data stops, says so
// with its exit code, and leaves everything as it was.
func TestSignal(t *testing.T) {
	d, err := sim.New(filepath.Join(t.TempDir(), "device"), sim.Options{SlotSize: 2 << 20, DeviceType: "test-board"})
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := (sim.Release{Name: "release-1"}).Image(image, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := d.Flash(2, image); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Boot(); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	code := make(chan int)
	go func() { code <- run(ctx, []string{"--root", d.Dir, "install", fifo}, io.Discard, os.Stderr) }()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // returns when the run has opened it
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cancel(signalError{syscall.SIGTERM})
	if got := <-code; got != 143 {
		t.Errorf("exit code %d, want 143", got)
	}
	if code := run(t.Context(), []string{"--root", d.Dir, "commit"}, io.Discard, os.Stderr); code != 2 {
		t.Errorf("commit: exit code %d, want 2", code)
	}
}

// TestClosedStandardOutput: who asks and gets no answer must not take that for
// one.
func TestClosedStandardOutput(t *testing.T) {
	r, w := io.Pipe()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--version"}, {"--help"}, {"--root", t.TempDir(), "show-artifact"}} {
		var log bytes.Buffer
		if code := run(t.Context(), args, w, &log); code != exitFailed || !strings.Contains(log.String(), "print the result: ") {
			t.Errorf("%q: exit code %d, want %d: %s", args, code, exitFailed, log.String())
		}
	}
}

// TestEnvironmentProxy: the list of hosts without a proxy may have commas, as
// for most programs, or spaces, as for mender-update 5.
func TestEnvironmentProxy(t *testing.T) {
	const list = "one.invalid, two.invalid  three.invalid"
	t.Setenv("http_proxy", "http://proxy.invalid:3128")
	t.Setenv("no_proxy", list)
	proxy, err := environmentProxy()
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"one.invalid": "", "two.invalid": "", "sub.three.invalid": "", "localhost": "", "127.0.0.1": "",
		"four.invalid": "http://proxy.invalid:3128",
	} {
		u, err := proxy(&http.Request{URL: &url.URL{Scheme: "http", Host: host}})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if u != nil {
			got = u.String()
		}
		if got != want {
			t.Errorf("proxy for %s = %q, want %q", host, got, want)
		}
	}
	if got := os.Getenv("no_proxy"); got != list {
		t.Errorf("no_proxy = %q afterward, want it as it was", got)
	}
}

func TestIsURL(t *testing.T) {
	for name, want := range map[string]bool{
		"http://host/x": true, "https://host/x": true, "HTTPS://host/x": true, "http://": true,
		"http:x": false, "ftp://host/x": false, "x": false, "./http://x": false, "": false,
	} {
		if got := isURL(name); got != want {
			t.Errorf("isURL(%q) = %v, want %v", name, got, want)
		}
	}
}
