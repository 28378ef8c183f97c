package artifact

import (
	"io"
	"time"
)

// ahead reads a stream in a goroutine of its own, a bounded number of buffers
// before they are asked for, so that decoding does not wait for the stick. It
// also lets the consumer leave while a read hangs.
type ahead struct {
	full    chan piece    // read and not yet taken; its capacity is the number of buffers
	free    chan []byte   // to be filled
	stop    chan struct{} // closed when nobody wants more
	done    chan struct{} // closed when the goroutine has ended
	current []byte        // the buffer that the consumer holds
}

// piece is what one read gave: bytes, an error, or both.
type piece struct {
	buf []byte // whole, to be given back
	n   int
	err error
}

// startAhead begins to read r. stopped is asked before each read, and its error
// is then the last piece's.
func startAhead(r io.Reader, stopped func() error) *ahead {
	a := &ahead{
		full: make(chan piece, aheadBuffers),
		free: make(chan []byte, aheadBuffers),
		stop: make(chan struct{}),
		done: make(chan struct{}),
	}
	for range aheadBuffers {
		a.free <- nil // made when it is needed: most artifacts of a test are small
	}
	go a.run(r, stopped)
	return a
}

func (a *ahead) run(r io.Reader, stopped func() error) {
	defer close(a.done)
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.stop:
			return
		}
		if buf == nil {
			buf = make([]byte, aheadBufferSize)
		}
		n, err := 0, stopped()
		if err == nil {
			n, err = readOnce(r, buf)
		}
		a.full <- piece{buf, n, err} // there is room for each buffer
		if err != nil {
			return
		}
	}
}

// next returns the bytes of the next read, which are valid until the call after
// it. canceled ends the wait for a read that hangs.
func (a *ahead) next(canceled <-chan struct{}, stopped func() error) ([]byte, error) {
	if a.current != nil {
		a.free <- a.current // there is room for each buffer
		a.current = nil
	}
	if err := stopped(); err != nil {
		return nil, err
	}
	select {
	case p := <-a.full:
		a.current = p.buf
		return p.buf[:p.n], p.err
	case <-canceled:
		return nil, stopped()
	}
}

// end stops the reading and waits until the goroutine has left the reader, but
// not for long: a stick that was pulled out may hold a read for ever. The
// goroutine then ends when that read does, and touches only its own buffer.
func (a *ahead) end() {
	close(a.stop)
	timer := time.NewTimer(aheadGrace)
	defer timer.Stop()
	select {
	case <-a.done:
	case <-timer.C:
	}
}

// readOnce reads until there is a byte or an error. An error that is not
// io.EOF is an Error of kind Media.
func readOnce(r io.Reader, p []byte) (int, error) {
	for range maxEmptyReads {
		n, err := r.Read(p)
		if err != nil && err != io.EOF {
			err = &Error{Kind: Media, Err: err}
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, &Error{Kind: Media, Err: io.ErrNoProgress}
}
