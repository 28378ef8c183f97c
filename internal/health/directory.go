package health

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/usb-updater/usb-updater/internal/runner"
)

// executable is a program of the directory.
//
// When we are root, it and its directory must belong to root and not be
// writable by everybody; otherwise anyone on the device could run programs as
// root, and so the check fails.
type executable struct {
	cmd runner.Cmd
}

func (e executable) name() string { return filepath.Base(e.cmd.Path) }

func (e executable) run(ctx context.Context) verdict {
	if reason := distrust(e.cmd.Path); reason != "" {
		return verdict{reason: reason, exitCode: -1, unasked: true}
	}
	ended, err := runner.Run(ctx, e.cmd)
	if err != nil {
		return verdict{reason: err.Error(), exitCode: -1, unasked: true}
	}
	if !ended.OK() {
		return verdict{reason: ended.String(), exitCode: ended.ExitCode, output: ended.Stdout + ended.Stderr}
	}
	return verdict{}
}

// executables returns the checks of the directory in the order of their names,
// or what is wrong with the directory. One that is missing has none.
func (k *Checker) executables() ([]check, verdict) {
	dir := k.config.Dir
	if dir == "" {
		return nil, verdict{}
	}
	names, err := list(dir)
	if err != nil {
		return nil, wrong("%v", err)
	}
	if reason := distrust(dir); reason != "" && len(names) > 0 {
		return nil, wrong("%s", reason)
	}
	checks := make([]check, len(names))
	for i, name := range names {
		checks[i] = executable{runner.Cmd{
			Path: filepath.Join(dir, name), Timeout: k.config.Timeout, Grace: k.config.Grace, Capture: maxOutput,
		}}
	}
	return checks, verdict{}
}

// list returns the names of the checks, sorted.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if leftover(e.Name()) || isDir(dir, e) {
			continue
		}
		if len(names) == maxChecks {
			return nil, fmt.Errorf("%s: more than %d checks", dir, maxChecks)
		}
		names = append(names, e.Name())
	}
	return names, nil
}

// isDir follows links. What cannot be looked at counts as a check, and fails.
func isDir(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.IsDir()
}

// leftover reports whether a file is one that editors and package managers
// leave beside the real one.
func leftover(name string) bool {
	ext := filepath.Ext(name)
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || ext == ".bak" ||
		strings.HasPrefix(ext, ".dpkg-") || strings.HasPrefix(ext, ".rpm")
}

// distrust says why root must not run the file, or "". A file that is not there
// fails later, with a better reason.
func distrust(path string) string {
	if err := runner.CheckOwner(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err.Error()
	}
	return ""
}
