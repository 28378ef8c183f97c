package report

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func listen(t *testing.T) (*Socket, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	s, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return s
}

func TestSocket(t *testing.T) {
	s, path := listen(t)
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("socket: %v, %v, want mode 0660", info.Mode(), err)
	}
	begin, end := Event{Kind: KindStart}, Event{Kind: KindEnd, Result: &OK}
	if err := s.Send(t.Context(), begin); err != nil {
		t.Fatal(err)
	}
	first := bufio.NewReader(dial(t, path))
	if got, want := line(t, first), string(begin.JSON())+"\n"; got != want {
		t.Errorf("a late client reads %q first, want %q", got, want)
	}
	second := bufio.NewReader(dial(t, path))
	line(t, second)
	if err := s.Send(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*bufio.Reader{first, second} {
		if got, want := line(t, r), string(end.JSON())+"\n"; got != want {
			t.Errorf("client reads %q, want %q", got, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := first.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("after Close: %v, want %v", err, io.EOF)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestSocketTurnsAwayTooMany(t *testing.T) {
	s, path := listen(t)
	if err := s.Send(t.Context(), Event{Kind: KindStart}); err != nil {
		t.Fatal(err)
	}
	for range MaxClients {
		line(t, bufio.NewReader(dial(t, path)))
	}
	if _, err := dial(t, path).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one client too many: %v, want %v", err, io.EOF)
	}
}

// TestSocketForgetsWhoHungUp: between two events, those that have gone keep no
// place from those that come; those that only have nothing to say keep theirs.
func TestSocketForgetsWhoHungUp(t *testing.T) {
	s, path := listen(t)
	begin := Event{Kind: KindStart}
	if err := s.Send(t.Context(), begin); err != nil {
		t.Fatal(err)
	}
	quiet := dial(t, path)
	stays := bufio.NewReader(quiet)
	line(t, stays)
	if err := quiet.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for range MaxClients - 1 {
		c := dial(t, path)
		line(t, bufio.NewReader(c))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	late := bufio.NewReader(dial(t, path))
	line(t, late)
	if err := s.Send(t.Context(), begin); err != nil {
		t.Fatal(err)
	}
	line(t, late)
	line(t, stays)
}

// TestSocketDropsSlowClients: one that does not read is dropped, and the others
// hear of everything.
func TestSocketDropsSlowClients(t *testing.T) {
	s, path := listen(t)
	begin := Event{Kind: KindStart}
	if err := s.Send(t.Context(), begin); err != nil {
		t.Fatal(err)
	}
	dial(t, path) // reads nothing
	good := bufio.NewReader(dial(t, path))
	line(t, good)
	n, limit := 0, 100000
	for ; n < limit; n++ {
		e := Event{Kind: KindStage, Bytes: int64(n)}
		if err := s.Send(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if got, want := line(t, good), string(e.JSON())+"\n"; got != want {
			t.Fatalf("client reads %q, want %q", got, want)
		}
		s.mu.Lock()
		clients := len(s.clients)
		s.mu.Unlock()
		if clients == 1 {
			break
		}
	}
	if n == limit {
		t.Errorf("a client that does not read is there after %d events", n)
	}
}

// TestListenSocketReplaces what a run that was killed has left, and nothing else.
func TestListenSocketReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	s, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := ListenSocket(path); err == nil {
		s.Close()
		t.Error("ListenSocket replaces a file")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}
