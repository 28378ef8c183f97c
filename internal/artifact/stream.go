package artifact

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/usb-updater/usb-updater/internal/inflate"
	"github.com/usb-updater/usb-updater/internal/xz"
)

// stream is the plain content of an inner archive. Its errors are Errors or
// those of the context: the fault of the lowest layer wins over what a
// decompressor makes of it.
type stream struct {
	suffix string // as in the entry's name: "", ".gz", ".xz", ".zst"
	in     *meter
	out    io.Reader
}

// isSuffix reports whether s ends the name of an archive of a known
// compression.
func isSuffix(s string) bool {
	return s == "" || s == ".gz" || s == ".xz" || s == ".zst"
}

// newStream returns the content of r. The suffix alone chooses the
// decompressor; a stream with another magic number is refused by it. At io.EOF
// the compressed stream's own checksums have been verified and all of r has
// been read.
func newStream(r io.Reader, suffix string, window int64) (*stream, error) {
	idle := int64(maxIdleInput)
	if suffix == ".xz" {
		idle = maxIdleInputXZ
	}
	in := &meter{r: r, left: idle, max: idle}
	s := &stream{suffix: suffix, in: in, out: in}
	var err error
	switch suffix {
	case ".gz":
		s.out = newGunzip(in)
	case ".xz":
		s.out = xz.NewReader(in, uint32(min(window, math.MaxUint32)))
	case ".zst":
		s.out, err = zstd.NewReader(in,
			zstd.WithDecoderConcurrency(1), // no goroutines, so nothing to close
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(max(window, minWindow))),
			zstd.WithDecoderMaxMemory(uint64(max(window, minWindow))))
	}
	if err != nil {
		return nil, s.explain(err)
	}
	return s, nil
}

// Read never returns bytes together with an error.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.out.Read(p)
	if n > 0 {
		s.in.left = s.in.max
		return n, nil // an error comes again
	}
	if err == nil || err == io.EOF {
		return 0, err
	}
	return 0, s.explain(err)
}

// explain turns a decompressor's error into an Error.
func (s *stream) explain(err error) error {
	switch {
	case s.in.err != nil:
		return s.in.err
	case s.suffix == "":
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("unexpected end of %s stream", s.suffix[1:])
	}
	kind := Format
	switch {
	case errors.Is(err, xz.ErrMemlimit),
		errors.Is(err, zstd.ErrWindowSizeExceeded),
		errors.Is(err, zstd.ErrDecoderSizeExceeded):
		kind = Limit
	case errors.Is(err, inflate.ErrChecksum), errors.Is(err, gzip.ErrChecksum), errors.Is(err, xz.ErrChecksum), errors.Is(err, zstd.ErrCRCMismatch):
		kind = Checksum
	case errors.Is(err, xz.ErrUnsupported), errors.Is(err, zstd.ErrUnknownDictionary):
		kind = Unsupported
	}
	return &Error{Kind: kind, Err: fmt.Errorf("decompress %s stream: %w", s.suffix[1:], err)}
}

// meter feeds a decompressor. It keeps the first error, which the decompressor
// may hide, and stops one that eats input without giving output.
type meter struct {
	r         io.Reader
	left, max int64 // bytes until the next output is overdue
	err       error
}

func (m *meter) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	if m.left <= 0 {
		m.err = fault(Limit, "more than %d compressed bytes without content", m.max)
		return 0, m.err
	}
	n, err := m.r.Read(p)
	m.left -= int64(n)
	if err != nil && err != io.EOF {
		m.err = err
	}
	return n, err
}
