package health

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// checks makes a directory of shell scripts, mode 0755. A body of "/" makes a
// subdirectory.
func checks(t *testing.T, bodies map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "health.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, body := range bodies {
		path := filepath.Join(dir, name)
		var err error
		if body == "/" {
			err = os.Mkdir(path, 0o755)
		} else {
			err = os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newChecker(t *testing.T, c Config) *Checker {
	t.Helper()
	k, err := New(c)
	if err != nil {
		t.Fatalf("New(%+v): %v", c, err)
	}
	return k
}

func wantResult(t *testing.T, c Config, want Result) {
	t.Helper()
	got, err := newChecker(t, c).Run(t.Context())
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Run (-want +got):\n%s", diff)
	}
}

func TestRun(t *testing.T) {
	tests := []struct {
		name   string
		bodies map[string]string
		want   Result
	}{
		{"no check", nil, Result{Passed: true}},
		{
			"all well",
			map[string]string{"20-b": "", "10-a": "echo noise", "9": ""},
			Result{Passed: true, Ran: []string{"10-a", "20-b", "9"}},
		},
		{
			"first failure ends it",
			map[string]string{"a": "", "b": "echo out; echo 'e\033[2Jrr' >&2; exit 3", "c": ""},
			Result{Ran: []string{"a", "b"}, Failed: "b", ExitCode: 3, Reason: "exit status 3", Output: "out\ne\ufffd[2Jrr\n"},
		},
		{
			"signal",
			map[string]string{"a": "kill -KILL $$"},
			Result{Ran: []string{"a"}, Failed: "a", ExitCode: -1, Reason: "killed by SIGKILL"},
		},
		{"leftovers and directories", map[string]string{
			".hidden": "exit 1", "a~": "exit 1", "a.bak": "exit 1", "a.dpkg-old": "exit 1", "a.rpmsave": "exit 1",
			"sub": "/", "a": "", "a.rpmdb.sh": "",
		}, Result{Passed: true, Ran: []string{"a", "a.rpmdb.sh"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantResult(t, Config{Dir: checks(t, tt.bodies)}, tt.want)
		})
	}
}

func TestRunMissingDirectory(t *testing.T) {
	wantResult(t, Config{Dir: filepath.Join(t.TempDir(), "none")}, Result{Passed: true})
}

func TestRunTimeout(t *testing.T) {
	dir := checks(t, map[string]string{"a": "exec sleep 1000", "b": ""})
	wantResult(t, Config{Dir: dir, Timeout: 20 * time.Millisecond, Grace: time.Hour},
		Result{Ran: []string{"a"}, Failed: "a", ExitCode: -1, Reason: "timed out"})
}

// What cannot run has failed; it must not be skipped.
func TestRunUnusableCheck(t *testing.T) {
	tests := []struct {
		name   string
		spoil  func(path string) error
		reason string
	}{
		{"mode 0644", func(p string) error { return os.Chmod(p, 0o644) }, "is not executable"},
		{"dangling link", func(p string) error { return errors.Join(os.Remove(p), os.Symlink("none", p)) }, "no such file or directory"},
		{"FIFO", func(p string) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o755)) }, "is not a regular file"},
		{"interpreter", func(p string) error { return os.WriteFile(p, []byte("#!/none\n"), 0o755) }, "its interpreter does not exist (see its first line, also for a Windows line end)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := checks(t, map[string]string{"a": "", "b": "", "c": ""})
			if err := tt.spoil(filepath.Join(dir, "b")); err != nil {
				t.Fatal(err)
			}
			want := Result{Ran: []string{"a"}, Failed: "b", ExitCode: -1, Reason: tt.reason}
			wantResult(t, Config{Dir: dir}, want)
		})
	}
}

func TestRunFollowsLinks(t *testing.T) {
	dir := checks(t, map[string]string{"a": ""})
	for name, target := range map[string]string{"b": "a", "sub": "."} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	wantResult(t, Config{Dir: dir}, Result{Passed: true, Ran: []string{"a", "b"}})
}

func TestRunAsRootTrustsOnlyRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: for anybody else the files are no concern")
	}
	tests := []struct {
		name   string
		change func(dir string) error
		want   Result
	}{
		{
			"file writable", func(d string) error { return os.Chmod(filepath.Join(d, "a"), 0o757) },
			Result{Failed: "a", Reason: "is writable by everybody"},
		},
		{
			"directory writable", func(d string) error { return os.Chmod(d, 0o777) },
			Result{Failed: ".", Reason: "is writable by everybody"},
		},
		{
			"file of another user", func(d string) error { return os.Chown(filepath.Join(d, "a"), 1, 0) },
			Result{Failed: "a", Reason: "does not belong to root"},
		},
		{
			"directory of another user", func(d string) error { return os.Chown(d, 1, 0) },
			Result{Failed: ".", Reason: "does not belong to root"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := checks(t, map[string]string{"a": ""})
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			tt.want.ExitCode = -1
			wantResult(t, Config{Dir: dir}, tt.want)
		})
	}
}

func TestRunNoResult(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("shutting down")
	cancel(cause)
	if _, err := newChecker(t, Config{Dir: checks(t, map[string]string{"a": ""})}).Run(ctx); !errors.Is(err, cause) {
		t.Errorf("Run: error %v, want %v", err, cause)
	}
}

// A directory that cannot be read may hold a check that fails.
func TestRunUnreadableDirectory(t *testing.T) {
	file := filepath.Join(checks(t, map[string]string{"a": ""}), "a")
	many := map[string]string{}
	for i := range maxChecks + 1 {
		many[strconv.Itoa(i)] = ""
	}
	for dir, reason := range map[string]string{file: "not a directory", checks(t, many): "more than 256 checks"} {
		got, err := newChecker(t, Config{Dir: dir}).Run(t.Context())
		if err != nil || got.Passed || got.Failed != "." || !strings.Contains(got.Reason, reason) {
			t.Errorf("Run of %s = %+v, %v, want a failure with %q", dir, got, err, reason)
		}
	}
}

func TestRunBoundsOutput(t *testing.T) {
	got, err := newChecker(t, Config{Dir: checks(t, map[string]string{"a": "seq 1 10000; echo end; exit 1"})}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Output) > maxOutput+64 || !strings.HasSuffix(got.Output, "\n10000\nend\n") {
		t.Errorf("Output has %d bytes and ends in %.20q", len(got.Output), got.Output[max(0, len(got.Output)-20):])
	}
}

func TestInspect(t *testing.T) {
	dir := checks(t, map[string]string{"10-good": "exit 0", "20-mode": "exit 0", "30-open": "exit 0", "40-dir": "/", "50-old.bak": ""})
	if err := errors.Join(os.Chmod(filepath.Join(dir, "20-mode"), 0o644), os.Chmod(filepath.Join(dir, "30-open"), 0o757)); err != nil {
		t.Fatal(err)
	}
	want := []string{"20-mode is not executable"}
	if os.Geteuid() == 0 {
		want = append(want, "30-open is writable by everybody")
	}
	names, problems, err := Inspect(dir)
	if diff := cmp.Diff(want, problems); err != nil || diff != "" {
		t.Errorf("Inspect: %v, problems (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff([]string{"10-good", "20-mode", "30-open"}, names); diff != "" {
		t.Errorf("Inspect: names (-want +got):\n%s", diff)
	}
	if names, problems, err := Inspect(filepath.Join(dir, "absent")); names != nil || problems != nil || err != nil {
		t.Errorf("Inspect of no directory = %q, %q, %v", names, problems, err)
	}
}

// TestInspectInterpreters: the kernel starts no script whose first line names an
// interpreter that is not there, for example one with a carriage return in its
// name.
func TestInspectInterpreters(t *testing.T) {
	dir := checks(t, nil)
	absent := filepath.Join(dir, ".absent")
	for name, first := range map[string]string{
		"a": "#!/bin/sh\r\n", "b": "#!/bin/sh -e\r\n", "c": "#!" + absent + "\n", "d": "#! sh\n", "e": "#!\n", "f": "#!" + dir + " x",
		"g": "#! \t/bin/sh -e \nexit 0\r\n", "h": "#!/bin/sh", "i": "\x7fELF\r\n", "j": "#!/bin/sh\n\r\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(first), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"a has a first line that ends with a carriage return, as editors on Windows write it",
		"b has a first line that ends with a carriage return, as editors on Windows write it",
		"c wants the interpreter " + absent + ", which is not there",
		"d wants the interpreter sh, which is no absolute path",
		"e wants no interpreter behind its #!",
		"f wants the interpreter " + dir + ", which is not executable",
	}
	_, problems, err := Inspect(dir)
	if diff := cmp.Diff(want, problems); err != nil || diff != "" {
		t.Errorf("Inspect: %v, problems (-want +got):\n%s", err, diff)
	}
}
