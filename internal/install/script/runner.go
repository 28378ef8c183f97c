package script

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/runner"
)

// Defaults of [Runner] (source: Mender client configuration,
// StateScriptTimeoutSeconds and the two StateScriptRetry settings).
const (
	DefaultTimeout       = time.Hour
	DefaultRetryInterval = time.Minute
	DefaultRetryTimeout  = 30 * time.Minute
)

// Limits.
const (
	maxVersionFile = 16
	maxQuoted      = 64 // bytes of a foreign string in an error text
)

// RetryLater is the exit code of a script that wants to be asked again
// (source: Mender documentation, "State scripts").
const RetryLater = 21

// Runner runs the state scripts of a device. A zero duration stands for its
// default.
type Runner struct {
	RootfsDir     string        // Download scripts: /etc/mender/scripts
	ArtifactDir   string        // Artifact scripts: the directory given to [Install]
	Timeout       time.Duration // of one run of a script
	Grace         time.Duration // from SIGTERM to SIGKILL after that
	RetryInterval time.Duration // from the end of a run to the next one
	RetryTimeout  time.Duration // since the start of the first run
	// Log hears what scripts write, and that one wants to be asked again; Warn
	// hears what is skipped, and of failures that are ignored. Lines are safe to
	// print. Optional.
	Log, Warn func(line string)

	now   func() time.Time // nil: time.Now
	sleep func(ctx context.Context, d time.Duration) error
}

// Failure says that a state script did not succeed.
type Failure struct {
	Script   string // file name
	ExitCode int    // -1 if it did not run, timed out or a signal ended it
	Reason   string // one line: "exit status 3", "timed out"
	Err      error  // why it did not run, or nil
}

// Error names the script and the reason.
func (f *Failure) Error() string {
	return fmt.Sprintf("state script %s: %s", quote(f.Script), f.Reason)
}

// Unwrap returns why the script did not run, or nil.
func (f *Failure) Unwrap() error { return f.Err }

// Install puts an artifact's scripts into ArtifactDir; see the function
// [Install].
func (r *Runner) Install(version int, scripts []artifact.Script) error {
	return Install(r.ArtifactDir, version, scripts)
}

// Run runs the scripts of one moment, such as ("ArtifactInstall", "Enter"), in
// the order of their names. A missing directory holds no scripts.
//
// The first script that fails ends the run with a [*Failure]. A script that is
// not executable has failed: a forgotten chmod must not skip a safety check. In
// Error actions and in ArtifactFailure a failure is logged, the scripts after
// it still run, and Run returns nil.
//
// When ctx is done, the running script is stopped and Run returns its cause, in
// every state.
func (r *Runner) Run(ctx context.Context, state, action string) error {
	dir := r.ArtifactDir
	if fromRootfs(state) {
		dir = r.RootfsDir
	}
	names, err := r.list(dir, state, action)
	if err != nil {
		return r.settle(ctx, state, action, err)
	}
	for _, name := range names {
		if err := r.settle(ctx, state, action, r.runScript(ctx, dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// settle decides what an error means for the update.
func (r *Runner) settle(ctx context.Context, state, action string, err error) error {
	if err == nil || !tolerant(state, action) || ctx.Err() != nil {
		return err
	}
	r.warnf("ignored: %v", err)
	return nil
}

// list returns the names of the scripts of a moment, sorted.
func (r *Runner) list(dir, state, action string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state scripts: %w", err)
	}
	var names []string
	for _, e := range entries {
		switch name := e.Name(); {
		case belongs(name, state, action):
			names = append(names, name)
		case nearMiss(name, state, action):
			r.warnf("state script %s is skipped: its name is not STATE_ACTION_NN or STATE_ACTION_NN_text", quote(name))
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	return names, checkVersion(dir)
}

// checkVersion refuses scripts that were made for another protocol. A file that
// is missing is no fault: nothing but the artifact's writer makes one.
func checkVersion(dir string) error {
	f, err := os.Open(filepath.Join(dir, versionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state scripts: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	data := make([]byte, maxVersionFile)
	n, err := io.ReadFull(f, data) // fills data only if the file is too long
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("state scripts: %w", err)
	}
	text := strings.TrimSpace(string(data[:n]))
	if version, err := strconv.Atoi(text); err != nil || n == len(data) || !supported(version) {
		return fmt.Errorf("state scripts: %s says version %s, want 2 or 3", f.Name(), quote(text))
	}
	return nil
}

func supported(version int) bool { return version == 2 || version == 3 }

// runScript runs one script until it does not ask for another time.
func (r *Runner) runScript(ctx context.Context, dir, name string) error {
	first := r.clock()
	patience := cmp.Or(r.RetryTimeout, DefaultRetryTimeout)
	for {
		res, err := r.runOnce(ctx, dir, name)
		switch {
		case err != nil:
			return err
		case res.OK():
			return nil
		case res.TimedOut || res.ExitCode != RetryLater:
			return &Failure{Script: name, ExitCode: exitCode(res), Reason: res.String()}
		}
		left := patience - r.clock().Sub(first)
		if left <= 0 {
			return &Failure{Script: name, ExitCode: RetryLater, Reason: fmt.Sprintf("still asks to retry later after %v", patience)}
		}
		pause := min(left, cmp.Or(r.RetryInterval, DefaultRetryInterval))
		r.logf("state script %s asks to retry later: next run in %v", quote(name), pause)
		if err := r.pause(ctx, pause); err != nil {
			return &Failure{Script: name, ExitCode: RetryLater, Reason: err.Error(), Err: err}
		}
	}
}

// exitCode hides what a script returned that was told to end: it may well be 0.
func exitCode(res runner.Result) int {
	if res.TimedOut {
		return -1
	}
	return res.ExitCode
}

func (r *Runner) runOnce(ctx context.Context, dir, name string) (runner.Result, error) {
	res, err := runner.Run(ctx, runner.Cmd{
		Path:    filepath.Join(dir, name),
		Timeout: cmp.Or(r.Timeout, DefaultTimeout),
		Grace:   r.Grace,
	})
	r.logOutput(name, "stdout", res.Stdout)
	r.logOutput(name, "stderr", res.Stderr)
	if err != nil {
		return res, &Failure{Script: name, ExitCode: -1, Reason: err.Error(), Err: err}
	}
	return res, nil
}

func (r *Runner) logOutput(name, stream, text string) {
	text = strings.TrimRight(runner.Printable(text), "\n")
	if text == "" {
		return
	}
	for line := range strings.SplitSeq(text, "\n") {
		r.logf("state script %s %s: %s", quote(name), stream, line)
	}
}

func (r *Runner) logf(format string, args ...any) { say(r.Log, format, args...) }

func (r *Runner) warnf(format string, args ...any) { say(r.Warn, format, args...) }

func say(to func(line string), format string, args ...any) {
	if to != nil {
		to(fmt.Sprintf(format, args...))
	}
}

func (r *Runner) clock() time.Time {
	if r.now != nil {
		return r.now()
	}
	return time.Now()
}

func (r *Runner) pause(ctx context.Context, d time.Duration) error {
	if r.sleep != nil {
		return r.sleep(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "..."
	}
	return strconv.Quote(s)
}
