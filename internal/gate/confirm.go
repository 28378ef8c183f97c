package gate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// ErrNotConfirmed reports that nobody agreed in the time that there was.
var ErrNotConfirmed = errors.New("nobody confirmed")

// filePause is the time between two looks for the file.
const filePause = 250 * time.Millisecond

// AwaitFile waits until the file at path appears, and removes it. A file that
// is there from before answers no question that is asked now: it is removed
// first. asked is called when an answer begins to count; it may be nil.
//
// It returns [ErrNotConfirmed] after limit, or the cause of ctx. A file that
// cannot be removed is an error, because it would agree to the next update
// as well.
func AwaitFile(ctx context.Context, path string, limit time.Duration, asked func()) error {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return fmt.Errorf("confirmation %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("confirmation: %w", err)
	}
	if asked != nil {
		asked()
	}
	wait, cancel := context.WithTimeoutCause(ctx, limit, ErrNotConfirmed)
	defer cancel()
	for {
		err := os.Remove(path)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("confirmation: %w", err)
		}
		if err := Pause(wait, filePause); err != nil {
			return fmt.Errorf("confirmation %s: %w", path, err)
		}
	}
}
