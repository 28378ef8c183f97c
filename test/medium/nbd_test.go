package medium

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
)

// client is a machine that uses a disk. It shares no code with the server.
type client struct {
	t    *testing.T
	conn net.Conn
}

func (c client) send(parts ...any) {
	c.t.Helper()
	for _, p := range parts {
		if err := binary.Write(c.conn, binary.BigEndian, p); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c client) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.conn, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// ask sends a request and returns the error number and, for a read, the data.
func (c client) ask(command, flags uint16, off uint64, length uint32, data []byte) (uint32, []byte) {
	c.t.Helper()
	c.send(uint32(0x25609513), flags, command, uint64(77), off, length, data)
	reply := c.read(16)
	if got := binary.BigEndian.Uint64(reply[8:]); got != 77 {
		c.t.Fatalf("answer to request %d", got)
	}
	code := binary.BigEndian.Uint32(reply[4:])
	if command == 0 && code == 0 {
		return code, c.read(int(length))
	}
	return code, nil
}

func connect(t *testing.T, s *Server) client {
	t.Helper()
	conn, err := net.Dial("unix", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := client{t, conn}
	if got := string(c.read(16)); got != "NBDMAGICIHAVEOPT" {
		t.Fatalf("greeting %q", got)
	}
	c.read(2)
	c.send(uint32(3))
	c.send([]byte("IHAVEOPT"), uint32(8), uint32(0)) // structured replies: not here
	if r := c.read(20); binary.BigEndian.Uint32(r[12:]) != 1<<31|1 {
		t.Fatalf("answer to an unknown option: %x", r)
	}
	c.send([]byte("IHAVEOPT"), uint32(7), uint32(6), uint32(0), uint16(0)) // go, no name, no wishes
	info := c.read(20 + 12)
	if size := binary.BigEndian.Uint64(info[22:]); size != 8*BlockSize {
		t.Fatalf("size %d", size)
	}
	c.read(20)
	return c
}

func TestServer(t *testing.T) {
	s, err := Serve(filepath.Join(t.TempDir(), "disk"), newImage(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	c := connect(t, s)
	if code, b := c.ask(0, 0, 1, 3, nil); code != 0 || string(b) != "---" {
		t.Errorf("read: %d, %q", code, b)
	}
	write := func(off uint64, text string) uint32 {
		code, _ := c.ask(1, 0, off, uint32(len(text)), []byte(text))
		return code
	}
	if code := write(0, "abc"); code != 0 {
		t.Errorf("write: %d", code)
	}
	c.ask(3, 0, 0, 0, nil) // flush
	c.ask(6, 0, 1, 1, nil) // zeros
	if code := write(8*BlockSize, "x"); code != 22 {
		t.Errorf("write behind the end: %d", code)
	}
	s.Fail(func(r Request) bool { return r.Write && r.Off == 5 })
	if code := write(5, "x"); code != 5 {
		t.Errorf("write that is to fail: %d", code)
	}
	s.Fail(nil)
	got := ""
	for _, e := range s.Trace().Entries() {
		got += fmt.Sprintf("%d+%d %q %v;", e.Off, e.Length, e.Data, e.Flush)
	}
	if want := `0+3 "abc" false;0+0 "" true;1+1 "" false;`; got != want {
		t.Errorf("trace %s, want %s", got, want)
	}
	// A machine that is switched on again finds what the last one wrote.
	if err := c.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if _, b := connect(t, s).ask(0, 0, 0, 3, nil); string(b) != "a\x00c" {
		t.Errorf("after the next power-on: %q", b)
	}
}
