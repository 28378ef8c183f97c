package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Defaults of [Cmd].
const (
	DefaultGrace   = 5 * time.Second
	DefaultCapture = 10 << 10 // bytes of each stream
	// MaxStdin bounds what a program can be given to read, in bytes: what the
	// smallest pipe holds, so that it is written before the program starts
	// (source: pipe(7), "Pipe capacity").
	MaxStdin = 4 << 10
)

// Errors that [Run] wraps when a program cannot be started.
var (
	ErrNotExecutable = errors.New("is not executable")
	ErrNotRegular    = errors.New("is not a regular file")
	// ErrNoInterpreter is what the kernel calls "no such file or directory"
	// although the program is there.
	ErrNoInterpreter = errors.New("its interpreter does not exist (see its first line, also for a Windows line end)")
)

// Cmd says what to run and how long to wait for it.
type Cmd struct {
	Path    string        // absolute
	Args    []string      // without the program's name
	Dir     string        // working directory; "" is "/"
	Env     []string      // "NAME=value"; nil inherits ours
	Stdin   string        // at most MaxStdin bytes; "" is /dev/null
	Timeout time.Duration // from start to SIGTERM; 0 is without limit
	Grace   time.Duration // from SIGTERM to SIGKILL; 0 is DefaultGrace
	Capture int           // bytes to keep of each stream; 0 is DefaultCapture
}

// Result says how a program ended.
type Result struct {
	ExitCode int            // -1 if a signal ended it
	Signal   syscall.Signal // 0 if it ended by itself
	TimedOut bool           // it was told to end, whatever its exit code says
	// Stdout and Stderr are the ends of what it wrote, raw: see [Printable].
	// Where the start is cut off, a line in square brackets says so.
	Stdout, Stderr string
	// StdoutCut tells that Stdout is not all of it.
	StdoutCut bool
}

// OK reports whether the program ended in time and by itself with exit code 0.
func (r Result) OK() bool { return r.ExitCode == 0 && r.Signal == 0 && !r.TimedOut }

// String says how the program ended, as in "exit status 3".
func (r Result) String() string {
	switch {
	case r.TimedOut:
		return "timed out"
	case r.Signal != 0:
		return "killed by " + unix.SignalName(r.Signal)
	default:
		return fmt.Sprintf("exit status %d", r.ExitCode)
	}
}

// Run runs the program to its end.
//
// After c.Timeout, or when ctx is done, the program's process group gets
// SIGTERM. It gets SIGKILL when c.Grace has passed, or earlier when the program
// and all that share its output are gone. A process that even SIGKILL does not
// end, for it waits for a broken medium, holds Run up.
//
// The error is nil whenever the program ran to an end of its own or to its
// timeout; the result tells which. It wraps the cause of ctx when that ended
// the program, and the result is then of the program as it was stopped. Any
// other error means that the program did not run. It does not name the
// program: the caller does that in its own words.
func Run(ctx context.Context, c Cmd) (Result, error) {
	// The kernel sends the death signal when the thread that forked ends. A
	// thread that is locked to this goroutine lives as long as it; any other
	// could be taken over by a goroutine that ends its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	if err := CheckExecutable(c.Path); err != nil {
		return Result{}, err
	}
	p, err := start(c)
	if err != nil {
		return Result{}, err
	}
	stopped := p.wait(ctx, c.Timeout)
	if stopped != nil {
		p.terminate(cmp.Or(c.Grace, DefaultGrace))
	}
	res, err := p.reap()
	res.TimedOut = errors.Is(stopped, errTimeout)
	if stopped != nil && !res.TimedOut {
		err = errors.Join(stopped, err)
	}
	return res, err
}

// CheckExecutable tells whether the program at path, which is absolute, can be
// run. It gives clear words to what the kernel calls "permission denied" in all
// cases.
func CheckExecutable(path string) error {
	if !filepath.IsAbs(path) {
		return errors.New("is not an absolute path")
	}
	info, err := os.Stat(path)
	if err != nil {
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
			err = pathErr.Err
		}
		return err
	}
	if !info.Mode().IsRegular() {
		return ErrNotRegular
	}
	// The call also knows of a file system that is mounted noexec.
	if err := unix.Access(path, unix.X_OK); err != nil {
		return ErrNotExecutable
	}
	return nil
}

// Printable makes a program's output safe to log: valid UTF-8, and no control
// characters but line ends and tabs, so that it cannot steer a terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, strings.ReplaceAll(s, "\r\n", "\n"))
}
