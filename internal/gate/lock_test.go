package gate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func acquire(t *testing.T, path string) *Lock {
	t.Helper()
	lock, err := AcquireLock(t.Context(), path, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lock.Release(); err != nil {
			t.Error(err)
		}
	})
	return lock
}

func TestAcquireLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "queue.lock")
	first := acquire(t, path)
	told := 0
	if _, err := AcquireLock(t.Context(), path, time.Millisecond, func() { told++ }); !errors.Is(err, ErrLocked) || told != 1 {
		t.Errorf("AcquireLock of a held lock = %v, told %d times, want %v, once", err, told, ErrLocked)
	}
	// Somebody who waits gets it when it is released.
	got := make(chan error, 1)
	waiting := make(chan struct{})
	go func() {
		second, err := AcquireLock(t.Context(), path, time.Minute, func() { close(waiting) })
		if err == nil {
			err = second.Release()
		}
		got <- err
	}()
	<-waiting
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("AcquireLock after the release = %v", err)
	}
}

func TestAcquireLockStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.lock")
	acquire(t, path)
	stop := errors.New("stick is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, err := AcquireLock(ctx, path, time.Hour, func() { cancel(stop) }); !errors.Is(err, stop) {
		t.Errorf("AcquireLock of a run that is stopped = %v, want %v", err, stop)
	}
}

func TestAcquireLockRefuses(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, dir} {
		if lock, err := AcquireLock(t.Context(), path, 0, nil); err == nil {
			t.Errorf("AcquireLock(%s) = %v, want an error", path, lock)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("the lock was made where the link leads")
	}
}
