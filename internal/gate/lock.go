package gate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked reports a lock that somebody else held for all of the time that
// there was to wait.
var ErrLocked = errors.New("somebody else holds the lock")

const (
	// lockPause is the time between two tries to get a lock.
	lockPause = 200 * time.Millisecond
	// dirMode is that of the run directory: everybody may look, and only its
	// owner may make a lock or agree.
	dirMode = 0o755
)

// Lock is a lock that is held. It must be released.
type Lock struct{ file *os.File }

// AcquireLock takes the exclusive lock of the file at path, which it makes,
// with its directory, if it is not there. It waits for limit, and tries once
// in any case. The error is [ErrLocked] after that, or the cause of ctx.
//
// waiting is called once if there is something to wait for. It may be nil.
func AcquireLock(ctx context.Context, path string, limit time.Duration, waiting func()) (*Lock, error) {
	// The file stays: were it removed, two could hold locks of two files.
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := flock(ctx, file, limit, waiting); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return &Lock{file}, nil
}

func flock(ctx context.Context, file *os.File, limit time.Duration, waiting func()) error {
	fd := int(file.Fd())
	wait, cancel := context.WithTimeoutCause(ctx, limit, ErrLocked)
	defer cancel()
	for first := true; ; first = false {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if first && waiting != nil {
			waiting()
		}
		if err := Pause(wait, lockPause); err != nil {
			return err
		}
	}
}

// Release gives the lock back. A second call does nothing.
func (l *Lock) Release() error {
	if err := l.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("release lock: %w", err)
	}
	return nil
}

// Pause waits for d, or until ctx ends: then it returns its cause.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
