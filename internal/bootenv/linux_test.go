package bootenv

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLockExcludes(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	for _, other := range []string{first, second} { // another program, which knows one of them
		unlock, err := lockAll(t.Context(), []string{other})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
		defer cancel()
		_, err = lockAll(ctx, []string{first, second})
		if !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s is locked: lockAll = %v, want ErrBusy", other, err)
		}
		unlock()
		again, err := lockAll(t.Context(), []string{first, second})
		if err != nil {
			t.Fatalf("%s is unlocked: %v", other, err)
		}
		again()
	}
}

func TestLockWaits(t *testing.T) {
	paths := []string{filepath.Join(t.TempDir(), "lock")}
	unlock, err := lockAll(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		again, err := lockAll(t.Context(), paths)
		if err == nil {
			again()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("lockAll did not wait: %v", err)
	case <-time.After(3 * lockPoll):
	}
	unlock()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestLockFiles(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	lock := func(paths ...string) error {
		unlock, err := lockAll(t.Context(), paths)
		if err == nil {
			unlock()
		}
		return err
	}
	if err := os.WriteFile(path("old"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Link(path("old"), path("same")), os.Symlink(path("old"), path("link"))); err != nil {
		t.Fatal(err)
	}
	if err := lock(path("old"), path("same"), path("old")); err != nil {
		t.Errorf("one file under several names: %v", err)
	}
	if b, err := os.ReadFile(path("old")); err != nil || string(b) != "content" {
		t.Errorf("the lock file holds %q, %v", b, err)
	}
	if err := lock(path("link")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("symbolic link: %v, want ELOOP", err)
	}
	if err := lock(path("absent/lock"), path("new")); err != nil {
		t.Errorf("one directory missing: %v", err)
	}
	if err := lock(path("absent/lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("every directory missing: %v, want ErrNotExist", err)
	}
	if err := lock(path("new"), path("old/lock")); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("no directory: %v, want ENOTDIR", err)
	}
}

func TestForceRO(t *testing.T) {
	if got, want := forceRO("/s", unix.Mkdev(179, 8)), "/s/dev/block/179:8/force_ro"; got != want {
		t.Errorf("forceRO = %s, want %s", got, want)
	}
	path := filepath.Join(t.TempDir(), "force_ro")
	now := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	restore, err := liftForceRO(path)
	if err != nil || restore() != nil {
		t.Errorf("no such attribute: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the attribute was created")
	}
	for old, during := range map[string]string{"1": "0", "0": "0"} {
		if err := os.WriteFile(path, []byte(old), 0o644); err != nil {
			t.Fatal(err)
		}
		restore, err := liftForceRO(path)
		if err != nil {
			t.Fatal(err)
		}
		if now() != during {
			t.Errorf("force_ro was %s and is %s, want %s", old, now(), during)
		}
		if err := restore(); err != nil || now() != old {
			t.Errorf("force_ro is %s after it, was %s; %v", now(), old, err)
		}
	}
}
