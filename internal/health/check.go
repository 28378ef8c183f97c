package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/usb-updater/usb-updater/internal/runner"
)

const (
	// DefaultTimeout bounds one check if [Check] does not say.
	DefaultTimeout = time.Minute
	maxChecks      = 256
	maxOutput      = 4 << 10 // bytes of each stream that are kept
)

// Check is the health check of one directory.
type Check struct {
	Dir     string        // absolute
	Timeout time.Duration // of each executable; 0 is DefaultTimeout
	Grace   time.Duration // from SIGTERM to SIGKILL; 0 is runner.DefaultGrace
}

// Result is what a health check found.
type Result struct {
	Passed bool
	Ran    []string // names of the executables that were started, in order
	// The rest is about the one that failed.
	Failed   string // its name, or "." for the directory itself
	ExitCode int    // -1 if it did not run or a signal ended it
	Reason   string // one line: "exit status 3", "timed out", "is not executable"
	Output   string // the end of stdout, then of stderr; safe to print
}

// Run runs the checks.
//
// A directory that is missing or holds no check passes with an empty Ran: the
// caller decides whether that will do. When we are root, the directory and the
// checks must belong to root and not be writable by everybody; otherwise
// anyone on the device could run programs as root, and so it fails.
//
// The error tells that there is no result: the directory is unreadable or ctx
// is done. It is never about a check.
func (c Check) Run(ctx context.Context) (Result, error) {
	names, err := c.list()
	if err != nil {
		return Result{}, fmt.Errorf("health check: %w", err)
	}
	var res Result
	if len(names) == 0 {
		res.Passed = true
		return res, nil
	}
	if reason := c.distrust("."); reason != "" {
		return res.fail(".", reason), nil
	}
	for _, name := range names {
		if reason := c.distrust(name); reason != "" {
			return res.fail(name, reason), nil
		}
		ended, err := runner.Run(ctx, c.command(name))
		if ctx.Err() != nil {
			return Result{}, fmt.Errorf("health check: %w", context.Cause(ctx))
		}
		if err != nil {
			return res.fail(name, err.Error()), nil
		}
		res.Ran = append(res.Ran, name)
		if !ended.OK() {
			res = res.fail(name, ended.String())
			res.ExitCode = ended.ExitCode
			res.Output = runner.Printable(ended.Stdout + ended.Stderr)
			return res, nil
		}
	}
	res.Passed = true
	return res, nil
}

func (c Check) command(name string) runner.Cmd {
	return runner.Cmd{
		Path:    filepath.Join(c.Dir, name),
		Timeout: cmp.Or(c.Timeout, DefaultTimeout),
		Grace:   c.Grace,
		Capture: maxOutput,
	}
}

func (r Result) fail(name, reason string) Result {
	r.Failed, r.ExitCode, r.Reason = runner.Printable(name), -1, reason
	return r
}

// list returns the names of the checks, sorted.
func (c Check) list() ([]string, error) {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if leftover(e.Name()) || c.isDir(e) {
			continue
		}
		if len(names) == maxChecks {
			return nil, fmt.Errorf("%s: more than %d checks", c.Dir, maxChecks)
		}
		names = append(names, e.Name())
	}
	return names, nil
}

// isDir follows links. What cannot be looked at counts as a check, and fails.
func (c Check) isDir(e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(c.Dir, e.Name()))
	return err == nil && info.IsDir()
}

// leftover reports whether a file is one that editors and package managers
// leave beside the real one.
func leftover(name string) bool {
	ext := filepath.Ext(name)
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || ext == ".bak" ||
		strings.HasPrefix(ext, ".dpkg-") || strings.HasPrefix(ext, ".rpm")
}

// distrust says why root must not run the file, or "". Links are followed: the
// directory that holds the link is checked as well. A file that is not there
// fails later, with a better reason.
func (c Check) distrust(name string) string {
	if os.Geteuid() != 0 {
		return ""
	}
	info, err := os.Stat(filepath.Join(c.Dir, name))
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || st.Uid != 0:
		return "does not belong to root"
	case info.Mode().Perm()&0o002 != 0:
		return "is writable by everybody"
	default:
		return ""
	}
}
