package script

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/runner"
)

// scripts makes a directory of shell scripts, mode 0755. The version file is
// taken as it is.
func scripts(t *testing.T, bodies map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range bodies {
		if name != versionFile {
			body = "#!/bin/sh\n" + body + "\n"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// device is a Runner whose log is kept and whose clock moves by sleeping only.
type device struct {
	Runner
	log    []string
	slept  []time.Duration
	onNap  func() // called by each sleep
	passed time.Duration
}

func newDevice(t *testing.T, rootfs, artifact map[string]string) *device {
	t.Helper()
	d := &device{}
	d.RootfsDir, d.ArtifactDir = scripts(t, rootfs), scripts(t, artifact)
	d.Log = func(line string) { d.log = append(d.log, line) }
	d.Warn = d.Log
	d.now = func() time.Time { return time.Unix(0, 0).Add(d.passed) }
	d.sleep = func(ctx context.Context, nap time.Duration) error {
		d.slept = append(d.slept, nap)
		d.passed += nap
		if d.onNap != nil {
			d.onNap()
		}
		return ctx.Err()
	}
	return d
}

// output returns what the scripts wrote to stdout, in order.
func (d *device) output() []string {
	var out []string
	for _, line := range d.log {
		if _, text, ok := strings.Cut(line, " stdout: "); ok {
			out = append(out, text)
		}
	}
	return out
}

func wantFailure(t *testing.T, err error, want Failure) {
	t.Helper()
	f, ok := errors.AsType[*Failure](err)
	if !ok {
		t.Fatalf("Run: error %v, want a *Failure", err)
	}
	if f.Script != want.Script || f.ExitCode != want.ExitCode || !strings.Contains(f.Reason, want.Reason) {
		t.Errorf("Run: %+v, want %+v", *f, want)
	}
	if want.Err != nil && !errors.Is(err, want.Err) {
		t.Errorf("Run: error %v, want %v in it", err, want.Err)
	}
}

func wantOutput(t *testing.T, d *device, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, d.output()); diff != "" {
		t.Errorf("scripts that ran (-want +got):\n%s\nlog:\n%s", diff, strings.Join(d.log, "\n"))
	}
}

func TestRunOrderAndSelection(t *testing.T) {
	d := newDevice(t,
		map[string]string{
			"Download_Enter_00":        "echo rootfs; exit 0",
			"ArtifactInstall_Enter_00": "echo wrong directory",
		},
		map[string]string{
			"ArtifactInstall_Enter_99":         "echo 99",
			"ArtifactInstall_Enter_05_b":       "echo 05_b",
			"ArtifactInstall_Enter_00":         "echo 00 $#",
			"ArtifactInstall_Enter_10_a":       "echo 10_a",
			"ArtifactInstall_Leave_00_Enter":   "echo another action",
			"ArtifactInstallX_Enter_00":        "echo another state",
			"XArtifactInstall_Enter_00":        "echo another state",
			"Download_Enter_00":                "echo wrong directory",
			"ArtifactInstall_Enter_00.sh":      "echo near miss",
			"ArtifactInstall_Enter_1":          "echo near miss",
			"artifactinstall_enter_01":         "echo near miss",
			"ArtifactInstall_Enter_02_a\x1b b": "echo near miss",
			"version":                          "3",
		})
	if err := d.Run(t.Context(), "Download", "Enter"); err != nil {
		t.Fatal(err)
	}
	wantOutput(t, d, "rootfs")
	d.log = nil
	if err := d.Run(t.Context(), "ArtifactInstall", "Enter"); err != nil {
		t.Fatal(err)
	}
	wantOutput(t, d, "00 0", "05_b", "10_a", "99")
	var skipped []string
	for _, line := range d.log {
		if name, _, ok := strings.Cut(line, " is skipped"); ok {
			skipped = append(skipped, strings.TrimPrefix(name, "state script "))
		}
	}
	want := []string{`"ArtifactInstall_Enter_00.sh"`, `"ArtifactInstall_Enter_02_a\x1b b"`, `"ArtifactInstall_Enter_1"`, `"artifactinstall_enter_01"`}
	if diff := cmp.Diff(want, skipped); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestRunFailureEndsTheMoment(t *testing.T) {
	tests := []struct {
		name, body string
		want       Failure
	}{
		{"exit code", "echo b; exit 3", Failure{ExitCode: 3, Reason: "exit status 3"}},
		{"signal", "echo b; kill -KILL $$", Failure{ExitCode: -1, Reason: "killed by SIGKILL"}},
	}
	for _, tt := range tests {
		for _, state := range []string{"ArtifactInstall", "ArtifactRollback"} {
			t.Run(tt.name+" in "+state, func(t *testing.T) {
				d := newDevice(t, nil, map[string]string{
					state + "_Enter_00": "echo a", state + "_Enter_01": tt.body, state + "_Enter_02": "echo c",
				})
				tt.want.Script = state + "_Enter_01"
				wantFailure(t, d.Run(t.Context(), state, "Enter"), tt.want)
				wantOutput(t, d, "a", "b")
			})
		}
	}
}

func TestRunIgnoresFailures(t *testing.T) {
	for _, moment := range [][2]string{{"Download", "Error"}, {"ArtifactInstall", "Error"}, {"ArtifactFailure", "Enter"}, {"ArtifactFailure", "Leave"}} {
		state, action := moment[0], moment[1]
		prefix := state + "_" + action
		t.Run(prefix, func(t *testing.T) {
			bodies := map[string]string{
				prefix + "_00": "echo a; exit 1", prefix + "_01": "", prefix + "_02": "echo c; exit 21", prefix + "_03": "echo d",
			}
			d := newDevice(t, bodies, bodies)
			d.RetryTimeout = time.Nanosecond
			for _, dir := range []string{d.RootfsDir, d.ArtifactDir} {
				if err := os.Chmod(filepath.Join(dir, prefix+"_01"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Run(t.Context(), state, action); err != nil {
				t.Errorf("Run: error %v, want none", err)
			}
			wantOutput(t, d, "a", "c", "c", "d")
			log := strings.Join(d.log, "\n")
			for _, want := range []string{"_00\": exit status 1", "_01\": is not executable", "retry later"} {
				if !strings.Contains(log, want) {
					t.Errorf("log does not tell %q:\n%s", want, log)
				}
			}
		})
	}
}

func TestRunNotExecutable(t *testing.T) {
	d := newDevice(t, map[string]string{"Download_Enter_00": "", "Download_Enter_01": "echo later"}, nil)
	if err := os.Chmod(filepath.Join(d.RootfsDir, "Download_Enter_00"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, d.Run(t.Context(), "Download", "Enter"),
		Failure{Script: "Download_Enter_00", ExitCode: -1, Reason: "is not executable", Err: runner.ErrNotExecutable})
	wantOutput(t, d)
}

func TestRunMissingDirectory(t *testing.T) {
	r := Runner{RootfsDir: filepath.Join(t.TempDir(), "none")}
	if err := r.Run(t.Context(), "Download", "Enter"); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRunVersion(t *testing.T) {
	tests := []struct {
		content string
		ok      bool
	}{
		{"2", true},
		{"3", true},
		{"3\n", true},
		{"", false},
		{"9", false},
		{"1", false},
		{"three", false},
		{"3" + strings.Repeat(" ", maxVersionFile) + "x", false},
	}
	for _, tt := range tests {
		t.Run(tt.content, func(t *testing.T) {
			d := newDevice(t, nil, map[string]string{
				"ArtifactCommit_Enter_00": "echo ran", "ArtifactCommit_Error_00": "echo ran", versionFile: tt.content,
			})
			err := d.Run(t.Context(), "ArtifactCommit", "Enter")
			if (err == nil) != tt.ok || (len(d.output()) == 1) != tt.ok {
				t.Errorf("Run: error %v, output %q, want run %v", err, d.output(), tt.ok)
			}
			if err := d.Run(t.Context(), "ArtifactCommit", "Leave"); err != nil {
				t.Errorf("Run without a script: %v", err)
			}
			if err := d.Run(t.Context(), "ArtifactCommit", "Error"); err != nil {
				t.Errorf("Run of the error scripts: %v", err)
			}
		})
	}
}

func TestRunRetry(t *testing.T) {
	// The script counts its runs in a file beside it and succeeds in the third.
	count := "echo run >>\"$0.count\"; test $(wc -l <\"$0.count\") -ge 3 || exit 21"
	d := newDevice(t, map[string]string{"Download_Enter_00": count + "; echo done"}, nil)
	if err := d.Run(t.Context(), "Download", "Enter"); err != nil {
		t.Fatal(err)
	}
	wantOutput(t, d, "done")
	if diff := cmp.Diff([]time.Duration{DefaultRetryInterval, DefaultRetryInterval}, d.slept); diff != "" {
		t.Errorf("sleeps (-want +got):\n%s", diff)
	}
}

func TestRunRetryGivesUp(t *testing.T) {
	d := newDevice(t, nil, map[string]string{
		"ArtifactInstall_Enter_00": "echo a",
		"ArtifactInstall_Enter_01": "echo b; exit 21",
		"ArtifactInstall_Enter_02": "echo c",
	})
	d.RetryInterval, d.RetryTimeout = 2*time.Second, 3*time.Second
	d.passed = 1000 * time.Hour // what happened before does not count
	wantFailure(t, d.Run(t.Context(), "ArtifactInstall", "Enter"),
		Failure{Script: "ArtifactInstall_Enter_01", ExitCode: RetryLater, Reason: "retry later after 3s"})
	wantOutput(t, d, "a", "b", "b", "b")
	if diff := cmp.Diff([]time.Duration{2 * time.Second, time.Second}, d.slept); diff != "" {
		t.Errorf("sleeps (-want +got):\n%s", diff)
	}
}

func TestRunTimeout(t *testing.T) {
	d := newDevice(t, map[string]string{"Download_Leave_00": "trap 'exit 21' TERM; while :; do :; done"}, nil)
	d.Timeout, d.Grace = 50*time.Millisecond, time.Minute
	wantFailure(t, d.Run(t.Context(), "Download", "Leave"),
		Failure{Script: "Download_Leave_00", ExitCode: -1, Reason: "timed out"})
	if len(d.slept) != 0 {
		t.Error("a script that timed out was retried")
	}
}

// Canceling wins over everything, also where failures are ignored.
func TestRunCanceled(t *testing.T) {
	for _, moment := range []string{"Download_Enter", "Download_Error"} {
		t.Run(moment, func(t *testing.T) {
			d := newDevice(t, map[string]string{moment + "_00": "echo a; exit 21", moment + "_01": "echo b"}, nil)
			ctx, cancel := context.WithCancel(t.Context())
			d.onNap = cancel
			state, action, _ := strings.Cut(moment, "_")
			if err := d.Run(ctx, state, action); !errors.Is(err, context.Canceled) {
				t.Errorf("Run: error %v, want %v", err, context.Canceled)
			}
			wantOutput(t, d, "a")
			if err := d.Run(ctx, state, action); !errors.Is(err, context.Canceled) {
				t.Errorf("Run with a canceled context: error %v, want %v", err, context.Canceled)
			}
		})
	}
}

func TestRealPause(t *testing.T) {
	var r Runner
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.pause(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("pause = %v, want %v", err, context.Canceled)
	}
	if err := r.pause(t.Context(), time.Nanosecond); err != nil {
		t.Errorf("pause = %v", err)
	}
}

func TestLogLines(t *testing.T) {
	d := newDevice(t, map[string]string{"Download_Enter_00": "printf 'one\\n\\033[2Jtwo\\n'; echo err >&2"}, nil)
	if err := d.Run(t.Context(), "Download", "Enter"); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`state script "Download_Enter_00" stdout: one`,
		`state script "Download_Enter_00" stdout: ` + "\ufffd[2Jtwo",
		`state script "Download_Enter_00" stderr: err`,
	}
	if diff := cmp.Diff(want, d.log); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	d.Log = nil // optional
	if err := d.Run(t.Context(), "Download", "Enter"); err != nil {
		t.Fatal(err)
	}
}
