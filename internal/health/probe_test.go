package health

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// listen answers each connection on the network with serve.
func listen(t *testing.T, network, address string, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func TestConnect(t *testing.T) {
	open := listen(t, "tcp", "127.0.0.1:0", func(net.Conn) {})
	sock := filepath.Join(t.TempDir(), "s")
	listen(t, "unix", sock, func(net.Conn) {})
	wantResult(t, Config{TCP: []string{open, "unix:" + sock}}, Result{Passed: true, Ran: []string{"tcp " + open, "tcp unix:" + sock}})

	got, err := newChecker(t, Config{TCP: []string{"unix:" + sock + "-none"}}).Run(t.Context())
	if err != nil || got.Passed || !strings.Contains(got.Reason, "no such file") {
		t.Errorf("Run = %+v, %v, want no such file", got, err)
	}
	got, err = newChecker(t, Config{TCP: []string{"127.0.0.1:1"}}).Run(t.Context())
	if err != nil || got.Passed || !strings.Contains(got.Reason, "refused") {
		t.Errorf("Run = %+v, %v, want connection refused", got, err)
	}
}

func TestPage(t *testing.T) {
	tests := []struct {
		name, response, reason, output string
	}{
		{"well", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "", ""},
		{"no content", "HTTP/1.0 204 No Content\r\n\r\n", "", ""},
		{"no reason phrase", "HTTP/1.1 200\r\n\r\n", "", ""},
		{"endless", "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 1<<20), "", ""},
		{"unwell", "HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nno \x1bdatabase", `status "HTTP/1.1 503 Service Unavailable"`, "no \ufffddatabase"},
		{"elsewhere", "HTTP/1.1 302 Found\r\nLocation: http://example.com/\r\n\r\n", `status "HTTP/1.1 302 Found"`, ""},
		{"no HTTP", "SSH-2.0-x\r\n", `the response is not HTTP: "SSH-2.0-x\r\n"`, ""},
		{"nothing", "", `the response is not HTTP: ""`, ""},
		{"status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", `the response is not HTTP: "HTTP/1.1 2000 OK\r\n"`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			requests := make(chan string, 1)
			address := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				line, _ := bufio.NewReader(c).ReadString('\n')
				requests <- line
				_, _ = io.WriteString(c, tt.response)
			})
			got, err := newChecker(t, Config{HTTP: []string{"http://" + address + "/a b?c=d"}}).Run(t.Context())
			if err != nil || got.Passed != (tt.reason == "") || got.Reason != tt.reason || got.Output != tt.output {
				t.Errorf("Run = %+v, %v, want reason %q, output %q", got, err, tt.reason, tt.output)
			}
			if line := <-requests; line != "GET /a%20b?c=d HTTP/1.0\r\n" {
				t.Errorf("request %q", line)
			}
		})
	}
}

// A server that answers well and keeps the connection open is not waited for.
func TestPageKeptOpen(t *testing.T) {
	release := make(chan struct{})
	address := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		<-release
	})
	defer close(release)
	wantResult(t, Config{HTTP: []string{"http://" + address}, Timeout: time.Hour}, Result{Passed: true, Ran: []string{"http http://" + address}})
}

// A server that says nothing is not waited for beyond the limit.
func TestPageTimeout(t *testing.T) {
	release := make(chan struct{})
	address := listen(t, "tcp", "127.0.0.1:0", func(net.Conn) { <-release })
	defer close(release)
	got, err := newChecker(t, Config{HTTP: []string{"http://" + address}, Timeout: 50 * time.Millisecond}).Run(t.Context())
	if err != nil || got.Passed || !strings.HasPrefix(got.Reason, "timed out: ") {
		t.Errorf("Run = %+v, %v, want a timeout", got, err)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("ready"), []byte("state: ok\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path("long"), fmt.Appendf(make([]byte, maxFile), "ok"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, contains, reason string }{
		{"ready", "", ""},
		{"ready", "ok", ""},
		{"fifo", "", ""},
		{"ready", "nok", `does not contain "nok"`},
		{"long", "ok", `does not contain "ok"`},
		{"none", "", "no such file or directory"},
		{"none", "ok", "no such file or directory"},
		{"fifo", "ok", "is not a regular file"},
	} {
		got, err := newChecker(t, Config{Files: []File{{path(tt.name), tt.contains}}}).Run(t.Context())
		if err != nil || got.Passed != (tt.reason == "") || got.Reason != tt.reason {
			t.Errorf("Run(%s contains %q) = %+v, %v, want reason %q", tt.name, tt.contains, got, err, tt.reason)
		}
	}
}
