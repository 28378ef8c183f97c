package report

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPause is the time between two tries to get a lock.
const lockPause = 200 * time.Millisecond

// lockFile opens the file and locks it, waiting for another program until ctx is
// done. The lock ends when the file is closed.
func lockFile(ctx context.Context, path string, after func(time.Duration) <-chan time.Time) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-after(lockPause):
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: another run has it: %w", path, context.Cause(ctx)), f.Close())
		}
	}
}
