package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/login1"
)

// ErrNoLogind reports a system on which nobody can be asked to hold off a
// shutdown.
var ErrNoLogind = errors.New("no logind on the system bus")

const (
	// busSocket is where the system bus listens (source: D-Bus specification).
	busSocket = "/run/dbus/system_bus_socket"
	// logindDir is there while logind runs (source: sd_booted(3) and logind).
	logindDir = "/run/systemd/seats"
	// logindLimit bounds the question: a bus that hangs stops no update.
	logindLimit = 5 * time.Second
)

// InhibitShutdown asks logind to refuse shutdown, reboot and suspend until
// the result is closed or the process ends. A shutdown that is forced, or that
// is asked of systemd itself, goes on all the same.
//
// It returns [ErrNoLogind] where there is none. The caller goes on without:
// a power cut at any instant is survived, too.
func InhibitShutdown(ctx context.Context, why string) (io.Closer, error) {
	for _, path := range []string{busSocket, logindDir} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNoLogind
		}
	}
	return inhibit(ctx, why)
}

func inhibit(ctx context.Context, why string) (io.Closer, error) {
	type result struct {
		lock *os.File
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := login1.New()
		if err != nil {
			done <- result{err: err}
			return
		}
		lock, err := conn.Inhibit("shutdown:sleep", "usb-updater", why, "block")
		conn.Close() // the lock is a descriptor of its own
		done <- result{lock, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, logindLimit)
	defer cancel()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("inhibit shutdown: %w", r.err)
		}
		return r.lock, nil
	case <-ctx.Done():
		go func() { // nobody waits for it any more
			if r := <-done; r.err == nil {
				_ = r.lock.Close() // only held, never written
			}
		}()
		return nil, fmt.Errorf("inhibit shutdown: %w", context.Cause(ctx))
	}
}
