package report

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/test/tier"
)

// plymouth is a server that speaks Plymouth's protocol as its own one does. It
// returns its address, and the requests that come.
func plymouth(t *testing.T, answer func(net.Conn)) (string, <-chan string) {
	t.Helper()
	address := fmt.Sprintf("@usb-updater-test/%d/%s", os.Getpid(), t.Name())
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan string, 16)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					var header [3]byte // the command, 2, the length with the NUL
					if _, err := io.ReadFull(conn, header[:]); err != nil {
						return
					}
					text := make([]byte, header[2])
					if _, err := io.ReadFull(conn, text); err != nil || header[1] != 2 || text[len(text)-1] != 0 {
						got <- fmt.Sprintf("no request: %q %q %v", header, text, err)
						return
					}
					got <- string(header[0]) + string(text[:len(text)-1])
					answer(conn)
				}
			}()
		}
	}()
	return address, got
}

func ack(conn net.Conn) { _, _ = conn.Write([]byte{6}) }

func TestPlymouth(t *testing.T) {
	address, got := plymouth(t, ack)
	p := NewPlymouth(address)
	for _, tt := range []struct {
		event Event
		want  []string
	}{
		{Event{Kind: KindStart, BlockDev: "sda1"}, []string{"Musb-updater: looking at stick sda1"}},
		{
			Event{Kind: KindProgress, Stage: "write", Slot: "B", Percent: 40},
			[]string{"musb-updater: looking at stick sda1", "Musb-updater: writing slot B: 40 %"},
		},
	} {
		if err := p.Send(t.Context(), tt.event); err != nil {
			t.Fatal(err)
		}
		for _, want := range tt.want {
			if text := <-got; text != want {
				t.Errorf("Plymouth got %q, want %q", text, want)
			}
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestPlymouthText: a text fits into a request, and is safe to show.
func TestPlymouthText(t *testing.T) {
	address, got := plymouth(t, ack)
	e := Event{Kind: KindEnd, Result: &Failed, Message: "\x1b[2J\n" + strings.Repeat("é", 300)}
	if err := NewPlymouth(address).Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if text := <-got; len(text)-1 > maxPlymouthText || len(text) < 200 || strings.ContainsAny(text, "\x1b\n") || !utf8.ValidString(text) {
		t.Errorf("Plymouth got %d bytes: %q", len(text), text)
	}
}

// TestPlymouthFails: whatever is there instead of a Plymouth that works, it
// takes no longer than its limit.
func TestPlymouthFails(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(net.Conn) // nil: nobody listens
		fails  bool
	}{
		"not there":     {nil, false},
		"refuses":       {func(c net.Conn) { _, _ = c.Write([]byte{0x15}) }, true},
		"hangs up":      {func(c net.Conn) { c.Close() }, true},
		"never answers": {func(net.Conn) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := "@usb-updater-test/nobody"
			if tt.answer != nil {
				address, _ = plymouth(t, tt.answer)
			}
			begin := time.Now()
			err := NewPlymouth(address).Send(t.Context(), Event{Kind: KindStart})
			if (err != nil) != tt.fails || time.Since(begin) > 20*plymouthTimeout {
				t.Errorf("Send = %v after %v, want an error: %v", err, time.Since(begin), tt.fails)
			}
		})
	}
}

// TestPlymouthOfAnotherNetwork: PrivateNetwork=, which the units have, puts
// Plymouth out of reach (docs/reporting.md).
func TestPlymouthOfAnotherNetwork(t *testing.T) {
	tier.Device.Need(t, "root")
	address, _ := plymouth(t, ack)
	dial := func() error {
		conn, err := net.Dial("unix", address)
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	onItsOwn(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("a network namespace: %v", err)
			return
		}
		if err := dial(); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("from another network: %v, want %v", err, unix.ECONNREFUSED)
		}
	})
}
