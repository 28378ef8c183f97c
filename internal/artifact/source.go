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
	r       io.Reader
	buf     []byte
	ready   []byte // part of buf that has not been handed out
	off     int64  // bytes handed out
	sum     hash.Hash
	stopped func() error // non-nil: asked before each read of r
	err     error
}

func newSource(r io.Reader) *source {
	return &source{r: r, buf: make([]byte, sourceBufferSize)}
}

// Read returns io.EOF at the end of the stream, an Error of kind Media when the
// reader fails and the error of stopped as it is.
func (s *source) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := 0
	switch {
	case len(s.ready) > 0:
		n = copy(p, s.ready)
		s.ready = s.ready[n:]
	case len(p) >= len(s.buf): // spare the copy
		n = s.fill(p)
	default:
		s.ready = s.buf[:s.fill(s.buf)]
		n = copy(p, s.ready)
		s.ready = s.ready[n:]
	}
	if n == 0 {
		return 0, s.err
	}
	s.off += int64(n)
	if s.sum != nil {
		s.sum.Write(p[:n])
	}
	return n, nil
}

// fill reads once into p. It returns 0 only when s.err is set.
func (s *source) fill(p []byte) int {
	if s.err != nil {
		return 0
	}
	if s.stopped != nil {
		if s.err = s.stopped(); s.err != nil {
			return 0
		}
	}
	for range maxEmptyReads {
		n, err := s.r.Read(p)
		if err == io.EOF {
			s.err = io.EOF
		} else if err != nil {
			s.err = &Error{Kind: Media, Err: err}
		}
		if n > 0 || err != nil {
			return n
		}
	}
	s.err = &Error{Kind: Media, Err: io.ErrNoProgress}
	return 0
}
