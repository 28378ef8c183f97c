package report

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStatus listens as a service manager does.
func TestStatus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := l.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	s := NewStatus()
	e := Event{Kind: KindProgress, Stage: "write", Artifact: "release-2\nX=1", Slot: "B", Percent: 42, Bytes: 42 << 20, Total: 100 << 20, Rate: 7_000_000, Left: 9}
	if err := s.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := l.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	got := string(buf[:n])
	if !strings.HasPrefix(got, "STATUS=") || strings.Contains(got, "\n") || !strings.Contains(got, e.Line()) {
		t.Errorf("status %q, want one line with %q", got, e.Line())
	}
	for _, want := range []string{"42", "7.0 MB/s", "9s"} {
		if !strings.Contains(got, want) {
			t.Errorf("status %q lacks %q", got, want)
		}
	}
}
