package health

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// listenUnix answers each connection to a socket with serve, and returns its
// path.
func listenUnix(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	return listen(t, "unix", filepath.Join(t.TempDir(), "s"), serve)
}

// TestElsewhere: checks that run behind the socket have the result that they
// have here.
func TestElsewhere(t *testing.T) {
	for name, bodies := range map[string]map[string]string{
		"none":   nil,
		"passes": {"10-a": "", "20-b": ""},
		"fails":  {"10-a": "", "20-b": "echo the pump does not turn; exit 3"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := checks(t, bodies)
			want, err := newChecker(t, Config{Dir: dir}).Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			there := newChecker(t, Config{Dir: dir})
			socket := listenUnix(t, func(conn net.Conn) {
				if err := there.Serve(t.Context(), conn, conn); err != nil {
					t.Errorf("Serve: %v", err)
				}
			})
			// Here it would fail: the result is that of the other end.
			wantResult(t, Config{Dir: checks(t, map[string]string{"x": "exit 9"}), Socket: socket}, want)
		})
	}
}

// TestElsewhereNobodyListens: without the other end the checks run here.
func TestElsewhereNobodyListens(t *testing.T) {
	dir := checks(t, map[string]string{"a": "exit 3"})
	want := Result{Ran: []string{"a"}, Failed: "a", ExitCode: 3, Reason: "exit status 3"}
	wantResult(t, Config{Dir: dir, Socket: filepath.Join(dir, "none.sock")}, want)

	left := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wantResult(t, Config{Dir: dir, Socket: left}, want)
}

// TestElsewhereNoResult: a process that ends without a result, or says too much
// or what is no result, has not passed.
func TestElsewhereNoResult(t *testing.T) {
	want := Result{Failed: ".", ExitCode: -1, Reason: "the process that runs the checks ended without a result"}
	for name, says := range map[string]string{
		"nothing":      "",
		"half":         `{"Passed":true`,
		"no result":    "ok\n",
		"another type": `{"Passed":"yes"}`,
		"too much":     `{"Passed":true,"Ran":["` + strings.Repeat("x", maxResult) + `"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			socket := listenUnix(t, func(conn net.Conn) { _, _ = io.WriteString(conn, says) })
			wantResult(t, Config{Socket: socket}, want)
		})
	}
}

// TestElsewhereIsPrintable: what the other end says is text, and a result that
// passed has no failure.
func TestElsewhereIsPrintable(t *testing.T) {
	socket := listenUnix(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, `{"Ran":["a\u001b[2J"],"Failed":"a\u001b[2J","Reason":"\u0007","Output":"\u202e"}`)
	})
	got, err := newChecker(t, Config{Socket: socket}).Run(t.Context())
	want := Result{Ran: []string{"a\ufffd[2J"}, Failed: "a\ufffd[2J", Reason: "\ufffd", Output: "\ufffd"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Run: %v (-want +got):\n%s", err, diff)
	}
	socket = listenUnix(t, func(conn net.Conn) { _, _ = io.WriteString(conn, `{"Passed":true,"Failed":"a","Reason":"b"}`) })
	wantResult(t, Config{Socket: socket}, Result{Passed: true})
}

// TestElsewhereCanceled: who does not want the result any longer ends the
// checks at the other end, and does not wait for them.
func TestElsewhereCanceled(t *testing.T) {
	dir := checks(t, map[string]string{"a": "echo > \"$0.began\"; exec sleep 3600"})
	ended := make(chan error, 1)
	there := newChecker(t, Config{Dir: dir, Timeout: time.Hour})
	socket := listenUnix(t, func(conn net.Conn) { ended <- there.Serve(context.Background(), conn, conn) })
	because := errors.New("told to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(dir, "a.began")); err == nil {
				cancel(because)
			}
			time.Sleep(time.Millisecond) // there is nothing to wait for but the file
		}
	}()
	if _, err := newChecker(t, Config{Dir: dir, Socket: socket}).Run(ctx); !errors.Is(err, because) {
		t.Errorf("Run = %v, want %v", err, because)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "the client hung up") {
		t.Errorf("Serve = %v, want that the client hung up", err)
	}
}
