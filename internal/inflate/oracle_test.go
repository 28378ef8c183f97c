package inflate

import (
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"testing"

	kflate "github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
)

// maxTestOutput bounds what a test decodes: a fuzzer finds what unpacks to much.
const maxTestOutput = 8 << 20

// gzipReader is what both libraries have.
type gzipReader interface {
	io.Reader
	Reset(r io.Reader) error
	Multistream(ok bool)
}

// oracle decodes in, member by member, so that one that is cut in its header is
// not taken for the end.
func oracle(z gzipReader, in []byte) ([]byte, error) {
	var out []byte
	r := bytes.NewReader(in)
	for members := 0; ; members++ {
		if members > 0 && r.Len() == 0 {
			return out, nil
		}
		if err := z.Reset(r); errors.Is(err, io.EOF) {
			return out, io.ErrUnexpectedEOF
		} else if err != nil {
			return out, err
		}
		z.Multistream(false)
		content, err := io.ReadAll(io.LimitReader(z, maxTestOutput))
		if out = append(out, content...); err != nil {
			return out, err
		}
		if len(out) >= maxTestOutput {
			return out, errors.New("too much output")
		}
	}
}

// checker holds decoders to be used again and again.
type checker struct {
	z      *Reader
	buf    []byte
	k      gzip.Reader
	std    stdgzip.Reader
	kRaw   io.ReadCloser
	stdRaw io.ReadCloser
}

func newChecker() *checker {
	return &checker{z: NewReader(nil), kRaw: kflate.NewReader(nil), stdRaw: flate.NewReader(nil)}
}

// decode reads all of in, with buffers of size bytes, and checks what holds for
// any error.
func (c *checker) decode(t *testing.T, in io.Reader, size int) ([]byte, error) {
	t.Helper()
	z := c.z
	z.Reset(in)
	var out []byte
	if len(c.buf) < size {
		c.buf = make([]byte, size)
	}
	buf := c.buf[:size]
	for {
		n, err := z.Read(buf)
		if n > 0 && err != nil || n == 0 && err == nil {
			t.Fatalf("Read = %d, %v, want either", n, err)
		}
		out = append(out, buf[:n]...)
		if len(out) >= maxTestOutput {
			return out, errors.New("too much output")
		}
		if err == nil {
			continue
		}
		if _, again := z.Read(buf); again != err { //nolint:errorlint // the same one
			t.Fatalf("Read = %v, and then %v", err, again)
		}
		if err == io.EOF { //nolint:errorlint // as it is
			return out, nil
		}
		return out, err
	}
}

// compare decodes in with ours and with both libraries. A stream is good if both
// take it: compress/gzip takes reserved flags, and klauspost/compress takes a
// block whose code of code lengths has no code, and decodes it by the one of the
// block before. zlib refuses both. What all have decoded must be the same.
func (c *checker) compare(t *testing.T, in []byte, size int) {
	t.Helper()
	got, err := c.decode(t, bytes.NewReader(in), size)
	std, stdErr := oracle(&c.std, in)
	k, kErr := oracle(&c.k, in)
	c.judge(t, in, result{got, err}, result{std, stdErr}, result{k, kErr})
}

// result is what a decoder has made of a stream.
type result struct {
	content []byte
	err     error
}

// judge compares the results of ours and of the libraries.
func (c *checker) judge(t *testing.T, in []byte, ours, std, k result) {
	t.Helper()
	good := std.err == nil && k.err == nil
	if (ours.err == nil) != good {
		t.Fatalf("decode(%x) = %v, want %v or %v", head(in), ours.err, std.err, k.err)
	}
	if good {
		if !bytes.Equal(ours.content, std.content) || !bytes.Equal(ours.content, k.content) {
			t.Fatalf("decode(%x) = %d bytes that differ", head(in), len(ours.content))
		}
		return
	}
	checkError(t, ours.err)
	for _, want := range [][]byte{std.content, k.content} {
		if n := min(len(ours.content), len(want)); !bytes.Equal(ours.content[:n], want[:n]) {
			t.Fatalf("decode(%x) = %d bytes that differ before an error", head(in), n)
		}
	}
}

// checkError fails if err is none that a stream can cause.
func checkError(t *testing.T, err error) {
	t.Helper()
	if _, ok := errors.AsType[*Error](err); !ok && !errors.Is(err, io.ErrUnexpectedEOF) && err.Error() != "too much output" {
		t.Fatalf("error is %T %v, want *Error or unexpected EOF", err, err)
	}
}

func head(in []byte) []byte { return in[:min(len(in), 200)] }

// compareRaw does the same with a deflate stream. Ours gets it in a member with
// the right trailer.
func (c *checker) compareRaw(t *testing.T, raw []byte, size int) {
	t.Helper()
	stdIn, kIn := bytes.NewReader(raw), bytes.NewReader(raw)
	_ = c.stdRaw.(flate.Resetter).Reset(stdIn, nil) // never fails
	_ = c.kRaw.(kflate.Resetter).Reset(kIn, nil)    // never fails
	var std, k, ours result
	std.content, std.err = io.ReadAll(io.LimitReader(c.stdRaw, maxTestOutput/2))
	k.content, k.err = io.ReadAll(io.LimitReader(c.kRaw, maxTestOutput/2))
	if len(std.content) == maxTestOutput/2 || len(k.content) == maxTestOutput/2 {
		return // neither has seen the end
	}
	member := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, raw[:len(raw)-stdIn.Len()]...)
	member = append(member, trailer(std.content)...)
	ours.content, ours.err = c.decode(t, bytes.NewReader(member), size)
	c.judge(t, raw, ours, std, k)
}
