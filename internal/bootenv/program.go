package bootenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/usb-updater/usb-updater/internal/runner"
)

// ErrProgram means that a program that stands between us and the boot loader
// did not do its work: it did not start, took too long, exited with another
// status than 0, or answered something else than was agreed.
var ErrProgram = errors.New("program failed")

// DefaultProgramTimeout bounds one run of such a program. Tools for raw flash
// take a second or two.
const DefaultProgramTimeout = 30 * time.Second

// toolPath is the PATH that programs get, and where they are looked up. Ours
// may come from a user's shell.
const toolPath = "/usr/sbin:/usr/bin:/sbin:/bin"

// ToolDirs returns the directories in which programs are looked up by default,
// in this order.
func ToolDirs() []string { return strings.Split(toolPath, ":") }

// FindTool returns the absolute path of an executable: name itself if it is
// absolute, else the first of that name in dirs. It is [ErrNotFound] if there
// is none.
func FindTool(dirs []string, name string) (string, error) {
	if filepath.IsAbs(name) {
		dirs, name = []string{filepath.Dir(name)}, filepath.Base(name)
	} else if name == "" || name != filepath.Base(name) {
		return "", fmt.Errorf("program %s: neither an absolute path nor a plain name", quote(name))
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("program %s: %w in %s", quote(name), ErrNotFound, strings.Join(dirs, ":"))
}

// program is a program that changes or tells what boots.
type program struct {
	path    string // absolute
	dir     string // working directory, "" is "/"
	timeout time.Duration
}

// run runs the program without an environment but a fixed PATH, and keeps at
// most limit bytes of each output. When ctx ends it is killed with its process
// group. The error is for a program that did not run to its end in time, or
// whose answer is longer than limit; the caller judges the exit status.
func (p program) run(ctx context.Context, limit int, stdin string, args ...string) (runner.Result, error) {
	res, err := runner.Run(ctx, runner.Cmd{
		Path: p.path, Args: args, Dir: p.dir, Env: []string{"PATH=" + toolPath},
		Stdin: stdin, Timeout: p.timeout, Capture: limit,
	})
	switch {
	case ctx.Err() != nil && err != nil:
		return res, fmt.Errorf("run %s: %w", p.path, err)
	case err != nil:
		return res, fmt.Errorf("run %s: %w: %w", p.path, ErrProgram, err)
	case res.TimedOut:
		return res, fmt.Errorf("run %s: %w: no end after %v", p.path, ErrProgram, p.timeout)
	case res.StdoutCut:
		return res, fmt.Errorf("run %s: %w: it prints more than %d bytes", p.path, ErrProgram, limit)
	}
	return res, nil
}

// failure is the error for an exit status that says so.
func (p program) failure(res runner.Result, sentinel error) error {
	return fmt.Errorf("run %s: %w: %s%s", p.path, sentinel, res, complaint(res.Stderr))
}

// complaint returns the last line of a program's error output, as an addition
// to an error; "" if there is none.
func complaint(stderr string) string {
	lines := strings.Split(strings.TrimSpace(runner.Printable(stderr)), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if last == "" {
		return ""
	}
	return ": " + quote(last)
}
