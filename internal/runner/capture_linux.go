package runner

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxDrain bounds what is read from a pipe after the program's end: as much as
// a pipe can hold (source: pipe(7), /proc/sys/fs/pipe-max-size). Without it, a
// process in the background that never stops writing would keep us.
const (
	maxDrain  = 1 << 20
	chunkSize = 4 << 10
)

// capture keeps the end of what comes out of a pipe.
type capture struct {
	pipe *os.File
	tail tail
	done chan struct{} // closed when nothing more is read
}

// newCapture starts to read; the program writes to the returned file.
func newCapture(limit int) (*capture, *os.File, error) {
	r, w, err := os.Pipe() // both ends are closed on exec
	if err != nil {
		return nil, nil, err
	}
	c := &capture{pipe: r, tail: tail{limit: limit}, done: make(chan struct{})}
	go c.read()
	return c, w, nil
}

// read ends when the last writer is gone or stop wants no more.
func (c *capture) read() {
	defer close(c.done)
	_, _ = io.CopyBuffer(&c.tail, struct{ io.Reader }{c.pipe}, make([]byte, chunkSize))
}

// stop takes what is in the pipe now, without waiting for those who still hold
// the other end, and returns the end of all.
func (c *capture) stop() string {
	_ = c.pipe.SetReadDeadline(time.Unix(1, 0)) // in the past: ends read
	<-c.done
	_ = c.pipe.SetReadDeadline(time.Time{})
	c.drain()
	_ = c.pipe.Close()
	return c.tail.String()
}

// drain reads without blocking. The program has ended, so all it wrote is there.
func (c *capture) drain() {
	raw, err := c.pipe.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, chunkSize)
	_ = raw.Read(func(fd uintptr) bool {
		for range maxDrain / chunkSize {
			n, err := unix.Read(int(fd), buf)
			if err != nil || n <= 0 {
				break
			}
			_, _ = c.tail.Write(buf[:n])
		}
		return true
	})
}

// tail keeps the last bytes written to it.
type tail struct {
	limit int
	buf   []byte
	cut   int64 // bytes that are gone
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if over := len(p) - t.limit; over > 0 {
		t.cut += int64(over)
		p = p[over:]
	}
	if over := len(t.buf) + len(p) - t.limit; over > 0 {
		t.cut += int64(over)
		t.buf = t.buf[:copy(t.buf, t.buf[over:])]
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// String marks the place where the start is missing.
func (t *tail) String() string {
	if t.cut == 0 {
		return string(t.buf)
	}
	return fmt.Sprintf("[%d bytes cut]\n%s", t.cut, t.buf)
}
