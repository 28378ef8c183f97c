package inflate

import (
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"slices"
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
		if err == io.EOF {
			return out, nil
		}
		return out, err
	}
}

// compare decodes in with ours and with both libraries. The verdicts must be the
// same, and so must be the content as far as all have decoded it.
func (c *checker) compare(t *testing.T, in []byte, size int) {
	t.Helper()
	got, err := c.decode(t, bytes.NewReader(in), size)
	want, wantErr := oracle(&c.k, in)
	std, stdErr := oracle(&c.std, in)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("decode(%x) = %v, want %v", head(in), err, wantErr)
	}
	// The standard library takes reserved flags and knows no other difference.
	if (err == nil) != (stdErr == nil) && !hasReserved(in) {
		t.Fatalf("decode(%x) = %v, want %v", head(in), err, stdErr)
	}
	if err != nil {
		checkError(t, err)
		n := min(len(got), len(want))
		got, want = got[:n], want[:n]
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("decode(%x) = %d bytes that differ, want %d", head(in), len(got), len(want))
	}
	if n := min(len(got), len(std)); !bytes.Equal(got[:n], std[:n]) {
		t.Fatalf("decode(%x) differs from compress/gzip", head(in))
	}
}

// checkError fails if err is none that a stream can cause.
func checkError(t *testing.T, err error) {
	t.Helper()
	if _, ok := errors.AsType[*Error](err); !ok && err != io.ErrUnexpectedEOF && err.Error() != "too much output" {
		t.Fatalf("error is %T %v, want *Error or unexpected EOF", err, err)
	}
}

func head(in []byte) []byte { return in[:min(len(in), 200)] }

// hasReserved reports whether a header in in may have a reserved flag.
func hasReserved(in []byte) bool {
	for {
		i := bytes.Index(in, []byte{0x1f, 0x8b, 8})
		if i < 0 || i+3 >= len(in) {
			return false
		}
		if in[i+3]&flagReserved != 0 {
			return true
		}
		in = in[i+3:]
	}
}

// compareRaw decodes a deflate stream with both libraries and, in a member with
// the right trailer, with ours.
func (c *checker) compareRaw(t *testing.T, raw []byte, size int) {
	t.Helper()
	stdIn, in := bytes.NewReader(raw), bytes.NewReader(raw)
	_ = c.stdRaw.(flate.Resetter).Reset(stdIn, nil) // never fails
	_ = c.kRaw.(kflate.Resetter).Reset(in, nil)     // never fails
	std, stdErr := io.ReadAll(io.LimitReader(c.stdRaw, maxTestOutput/2))
	want, wantErr := io.ReadAll(io.LimitReader(c.kRaw, maxTestOutput/2))
	if (stdErr == nil) != (wantErr == nil) || stdErr == nil && !bytes.Equal(std, want) || len(want) == maxTestOutput/2 {
		if len(want) == maxTestOutput/2 {
			return
		}
		t.Fatalf("the libraries disagree about %x: %v, %v", head(raw), stdErr, wantErr)
	}
	member := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, raw[:len(raw)-in.Len()]...)
	member = append(member, trailer(want)...)
	got, err := c.decode(t, bytes.NewReader(member), size)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("decode(%x) = %v, want %v", head(raw), err, wantErr)
	}
	n := len(got)
	if err != nil {
		checkError(t, err)
		n = min(n, len(want))
		want = want[:n]
	}
	if !slices.Equal(got[:n], want) {
		t.Fatalf("decode(%x) = %d bytes that differ, want %d", head(raw), n, len(want))
	}
}
