package bootenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockWait bounds the wait for other programs where ctx does not. They
	// hold the lock for milliseconds.
	lockWait = 10 * time.Second
	lockPoll = 5 * time.Millisecond
)

// defaultLocks returns the lock files of U-Boot's tools since 2023.07, and of
// older ones and libubootenv. To exclude both kinds it takes both files, always
// in this order (sources: U-Boot, tools/env/fw_env_main.c; libubootenv,
// uboot_env.c).
func defaultLocks() []string {
	return []string{"/run/fw_printenv.lock", "/var/lock/fw_printenv.lock"}
}

// lockAll locks every file and returns the function that releases them. Where
// the directory of a lock file does not exist no other program can use that
// lock either, so it is left out; but one lock at least must be held. Any
// other failure is an error, because going on could lose an update.
func lockAll(ctx context.Context, paths []string) (_ func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var held []*os.File
	unlock := func() {
		for _, f := range held {
			_ = f.Close() // releases the lock; nothing was written
		}
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	var missing error
	for _, path := range paths {
		f, err := openLock(path)
		if errors.Is(err, fs.ErrNotExist) {
			missing = errors.Join(missing, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		// The second lock on the same file would wait for the first.
		if same, err := heldAlready(held, f); err != nil || same {
			if err = errors.Join(err, f.Close()); err != nil {
				return nil, fmt.Errorf("lock %s: %w", path, err)
			}
			continue
		}
		held = append(held, f)
		if err := flock(ctx, f); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
	if len(held) == 0 {
		return nil, fmt.Errorf("no lock file can be created: %w", missing)
	}
	return unlock, nil
}

// openLock opens or creates a lock file. The directories are often writable
// for everybody, so a link is not followed and nothing is truncated. A file
// that exists is opened without O_CREAT: the kernel may refuse that for
// another user's file in such a directory.
func openLock(path string) (*os.File, error) {
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	f, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|flags, 0o644)
	}
	if errors.Is(err, fs.ErrExist) { // another program was faster
		f, err = os.OpenFile(path, os.O_RDONLY|flags, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

func heldAlready(held []*os.File, f *os.File) (bool, error) {
	a, err := f.Stat()
	if err != nil {
		return false, err
	}
	for _, h := range held {
		b, err := h.Stat()
		if err != nil {
			return false, err
		}
		if os.SameFile(a, b) {
			return true, nil
		}
	}
	return false, nil
}

// flock waits for the lock of f until ctx ends. It polls, because a blocking
// flock cannot be given up.
func flock(ctx context.Context, f *os.File) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
		case <-tick.C:
		}
	}
}
