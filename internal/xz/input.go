package xz

import (
	"errors"
	"io"
)

const (
	// inputSize is how much compressed input is held, in bytes. It is twice the
	// largest chunk, so that not much is moved to make room for one.
	inputSize = 2 * maxCompressed
	// inputMargin is how many bytes behind a chunk the LZMA decoder may touch
	// before it sees that the chunk has ended: a symbol takes at most 48 bits,
	// which consume at most 20 bytes, and one more byte follows the last one.
	inputMargin = 32
	// maxEmptyReads is how often in a row a source may give nothing.
	maxEmptyReads = 100
)

// inputBuffer is what the LZMA decoder reads from.
type inputBuffer [inputSize + inputMargin]byte

// input is a window on the compressed bytes.
type input struct {
	r        io.Reader
	buf      inputBuffer
	pos, end int   // what is in buf and not yet used
	base     int64 // offset in the input of buf[0]
	err      error // of r; no more is read
}

// offset returns the position of the next byte from the beginning of the input.
func (in *input) offset() int64 { return in.base + int64(in.pos) }

// need makes the next n bytes available at buf[pos:], n <= inputSize. At the end
// of the input it returns io.EOF if there is nothing and io.ErrUnexpectedEOF if
// there is less; other errors are those of the source, as they are.
func (in *input) need(n int) error {
	if in.end-in.pos >= n {
		return nil
	}
	if in.pos+n > inputSize {
		in.base += int64(in.pos)
		in.end = copy(in.buf[:], in.buf[in.pos:in.end])
		in.pos = 0
	}
	for empty := 0; in.end-in.pos < n; {
		if in.err != nil {
			if errors.Is(in.err, io.EOF) && in.end > in.pos {
				return io.ErrUnexpectedEOF
			}
			return in.err
		}
		var got int
		got, in.err = in.r.Read(in.buf[in.end:inputSize])
		in.end += got
		if empty++; got > 0 {
			empty = 0
		} else if empty >= maxEmptyReads && in.err == nil {
			in.err = io.ErrNoProgress
		}
	}
	return nil
}

// next returns the next n bytes, valid until the next call of need or next. The
// end of the input is always io.ErrUnexpectedEOF.
func (in *input) next(n int) ([]byte, error) {
	if err := in.need(n); err != nil {
		return nil, unexpected(err)
	}
	in.pos += n
	return in.buf[in.pos-n : in.pos], nil
}

// unexpected turns the end of the input into one that comes too early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
