package report

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/usb-updater/usb-updater/internal/runner"
)

const (
	maxHookOutput = 1 << 10 // bytes of each stream that are kept
	hookGrace     = time.Second
)

// hookEnv is all that a hook gets from us besides its argument and its input.
func hookEnv() []string { return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"} }

// NewHook returns a sink that runs the program at path for each event but
// progress, with the kind as its only argument and the JSON form of the event,
// and a line end, on its standard input. One call follows the other; each has
// the time that timeout says, then SIGTERM, then SIGKILL a second later.
//
// A program that does not belong to root, or that others may write, is not run
// by root: it would hand root to whoever changes it. How a call ends changes
// nothing but a warning.
func NewHook(path string, timeout time.Duration) Sink { return hookSink{path, timeout} }

// CheckHook tells whether the program at path would be called for an event. It
// runs nothing.
func CheckHook(path string) error {
	if err := trusted(path); err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	if err := runner.CheckExecutable(path); err != nil {
		return fmt.Errorf("hook: %s: %w", path, err)
	}
	return nil
}

type hookSink struct {
	path    string
	timeout time.Duration
}

func (h hookSink) Send(ctx context.Context, e Event) error {
	if e.Kind == KindProgress {
		return nil
	}
	if err := trusted(h.path); err != nil {
		return fmt.Errorf("hook %s: %w", h.path, err)
	}
	res, err := runner.Run(ctx, runner.Cmd{
		Path: h.path, Args: []string{string(e.Kind)}, Env: hookEnv(), Stdin: string(e.JSON()) + "\n",
		Timeout: h.timeout, Grace: hookGrace, Capture: maxHookOutput,
	})
	if err != nil {
		return fmt.Errorf("hook %s: event %s: %w", h.path, e.Kind, err)
	}
	if !res.OK() {
		words := strings.Join(strings.Fields(runner.Printable(res.Stderr+" "+res.Stdout)), " ")
		return fmt.Errorf("hook %s: event %s: %s: %s", h.path, e.Kind, res, cut(words, maxEventMessage))
	}
	return nil
}

func (hookSink) Close() error { return nil }

// trusted tells whether root may run the program at path: neither it nor its
// directory can be changed by others.
func trusted(path string) error {
	for _, name := range []string{path, filepath.Dir(path)} {
		if err := runner.CheckOwner(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
