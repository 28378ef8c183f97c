package report

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NewConsole returns a sink that writes a line for people to the console at
// path for each event but progress. A console that takes nothing, such as a
// serial line that nobody reads, loses lines and holds nothing up.
func NewConsole(path string) Sink { return consoleSink{path} }

type consoleSink struct{ path string }

func (c consoleSink) Send(_ context.Context, e Event) error {
	if e.Kind == KindProgress {
		return nil
	}
	// Without O_NOCTTY the console would become the terminal of a program that
	// has none, and its hang-up would end the run.
	fd, err := unix.Open(c.path, unix.O_WRONLY|unix.O_APPEND|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open console: %w", &os.PathError{Op: "open", Path: c.path, Err: err})
	}
	defer unix.Close(fd)
	// A carriage return first: the cursor may be anywhere.
	if _, err := unix.Write(fd, []byte("\rusb-updater: "+e.Line()+"\r\n")); err != nil {
		return fmt.Errorf("write to console %s: %w", c.path, err)
	}
	return nil
}

func (consoleSink) Close() error { return nil }
