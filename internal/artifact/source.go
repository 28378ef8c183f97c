package artifact

import (
	"hash"
	"io"
)

// maxEmptyReads is how often a reader may return nothing and no error.
const maxEmptyReads = 100

// source is the raw stream below everything: buffered, counted and, as long as
// sum is set, hashed. It never returns bytes together with an error, and its
// first error is its last word.
type source struct {
	r     io.Reader
	buf   []byte
	ready []byte // read, and not handed out
	off   int64  // bytes handed out
	sum   hash.Hash
	err   error

	// Set while the payload is copied.
	ahead    *ahead
	canceled <-chan struct{}
	stopped  func() error // asked before each read of r
}

func newSource(r io.Reader) *source {
	return &source{r: r, buf: make([]byte, sourceBufferSize)}
}

// readAhead makes a goroutine read from here on, until canceled is closed or
// [source.end] is called. stopped is the error that then is returned.
func (s *source) readAhead(canceled <-chan struct{}, stopped func() error) {
	s.canceled, s.stopped = canceled, stopped
	s.ahead = startAhead(s.r, stopped)
}

// end stops reading ahead.
func (s *source) end() { s.ahead.end() }

// Read returns io.EOF at the end of the stream, an Error of kind Media when the
// reader fails and the error of stopped as it is.
func (s *source) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(s.ready) == 0 {
		s.fill()
		if len(s.ready) == 0 {
			return 0, s.err
		}
	}
	n := copy(p, s.ready)
	s.ready = s.ready[n:]
	s.off += int64(n)
	if s.sum != nil {
		s.sum.Write(p[:n])
	}
	return n, nil
}

// fill sets ready to the bytes of one read. It leaves it empty only when s.err
// is set.
func (s *source) fill() {
	switch {
	case s.err != nil:
	case s.ahead != nil:
		s.ready, s.err = s.ahead.next(s.canceled, s.stopped)
	default:
		var n int
		n, s.err = readOnce(s.r, s.buf)
		s.ready = s.buf[:n]
	}
}
