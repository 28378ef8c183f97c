package inflate

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

// readSizes are buffer sizes: decoded by way of the Reader's own buffer, and
// into the caller's.
var readSizes = []int{1 << 20, bufferSize, bufferSize - 1, 4096, 77}

// samples are contents of all sorts, up to some 100 KiB.
func samples() map[string][]byte {
	rng := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 120_000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	var text, mix bytes.Buffer
	for text.Len() < 200_000 {
		fmt.Fprintf(&text, "line %d of %x\n", rng.IntN(100), rng.IntN(5000))
	}
	for mix.Len() < 400_000 {
		mix.Write(noise[:rng.IntN(9000)])
		mix.Write(text.Bytes()[:rng.IntN(40000)])
		mix.Write(make([]byte, rng.IntN(60000)))
	}
	return map[string][]byte{
		"nothing": nil,
		"a byte":  {7},
		"noise":   noise,
		"text":    text.Bytes(),
		"zeros":   make([]byte, 300_000),
		"periods": bytes.Repeat([]byte("abcdefg"), 30_000),
		"mix":     mix.Bytes(),
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	c := newChecker()
	for name, want := range samples() {
		for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
			var b bytes.Buffer
			for _, open := range []func() (io.WriteCloser, error){
				func() (io.WriteCloser, error) { return stdgzip.NewWriterLevel(&b, level) },
				func() (io.WriteCloser, error) { return gzip.NewWriterLevel(&b, level) },
			} {
				b.Reset()
				w, err := open()
				if err != nil {
					t.Fatal(err)
				}
				_, _ = w.Write(want)
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				size := readSizes[(level+10)%len(readSizes)]
				got, err := c.decode(t, bytes.NewReader(b.Bytes()), size)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("decode(%s, level %d) by %d = %d bytes, %v, want %d", name, level, size, len(got), err, len(want))
				}
			}
		}
	}
}

func TestReadersAndSizes(t *testing.T) {
	t.Parallel()
	want := samples()["mix"]
	var b bytes.Buffer
	w := stdgzip.NewWriter(&b)
	_, _ = w.Write(want)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c := newChecker()
	for _, size := range append(readSizes, 1, 2, bufferSize+1, 2*bufferSize-1, 300_000) {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"plain":    func(r io.Reader) io.Reader { return r },
			"one byte": iotest.OneByteReader,
			"half":     iotest.HalfReader,
			"data err": iotest.DataErrReader,
		} {
			got, err := c.decode(t, wrap(bytes.NewReader(b.Bytes())), size)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("decode by %d from %s = %d bytes, %v, want %d", size, name, len(got), err, len(want))
			}
		}
	}
}

// TestGzip decodes what the real tool makes.
func TestGzip(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gzip"); err != nil {
		t.Skip("gzip is not installed")
	}
	c := newChecker()
	for sample, want := range samples() {
		name := filepath.Join(t.TempDir(), "sample")
		if err := os.WriteFile(name, want, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, level := range []string{"-1", "-6", "-9"} {
			packed, err := exec.CommandContext(t.Context(), "gzip", level, "-c", name).Output()
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.decode(t, bytes.NewReader(packed), 1<<20)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("decode(gzip %s of %s) = %d bytes, %v, want %d", level, sample, len(got), err, len(want))
			}
		}
	}
}

// TestManyMembers reads a stream like that of parallel compressors.
func TestManyMembers(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	var want []byte
	rng := rand.New(rand.NewPCG(5, 6))
	text := samples()["text"]
	for i := range 300 {
		w, err := stdgzip.NewWriterLevel(&b, rng.IntN(10))
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			w.Name, w.Comment, w.Extra = strings.Repeat("n", rng.IntN(400)), "c", make([]byte, rng.IntN(1000))
		}
		part := text[rng.IntN(1000):][:rng.IntN(20_000)*(i%4)/3]
		_, _ = w.Write(part)
		want = append(want, part...)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c := newChecker()
	for _, size := range readSizes {
		got, err := c.decode(t, bytes.NewReader(b.Bytes()), size)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("decode by %d = %d bytes, %v, want %d", size, len(got), err, len(want))
		}
	}
}

// smallStreams are streams of all types of blocks that are short enough to be
// cut and damaged at every byte.
func smallStreams(t *testing.T) [][]byte {
	t.Helper()
	var streams [][]byte
	for _, level := range []int{stdgzip.HuffmanOnly, 0, 1, 9} {
		var b bytes.Buffer
		for range 2 {
			w, err := stdgzip.NewWriterLevel(&b, level)
			if err != nil {
				t.Fatal(err)
			}
			w.Name, w.Comment, w.Extra = "n", "c", []byte{1, 2}
			for i := range 25 {
				fmt.Fprintf(w, "%d little lambs, ", i*i*i)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		streams = append(streams, b.Bytes())
	}
	lits, dists := fixedCodes()
	e := new(encoder).stored(0, "stored").bits(2, 3).literal(lits, 'a')
	e.match(lits, dists, 30, 1)
	e.match(lits, dists, 4, 7)
	e.symbol(lits, endOfBlock)
	rng := rand.New(rand.NewPCG(1, 1))
	randomBlock(e, rng, 1, 20)
	return append(streams, e.member())
}

func TestTruncation(t *testing.T) {
	t.Parallel()
	c := newChecker()
	for _, in := range smallStreams(t) {
		whole := 0
		for n := range len(in) {
			_, err := c.decode(t, bytes.NewReader(in[:n]), readSizes[n%len(readSizes)])
			if err == nil {
				whole++
				if in[n] != 0x1f {
					t.Errorf("decode of %d bytes of %d = nil, want an error", n, len(in))
				}
			} else if err != io.ErrUnexpectedEOF { //nolint:errorlint // as it is
				t.Errorf("decode of %d bytes of %d = %v, want %v", n, len(in), err, io.ErrUnexpectedEOF)
			}
			c.compare(t, in[:n], 1<<20)
		}
		if whole > 1 { // at the end of the first member of two
			t.Errorf("%d cuts were not noticed", whole)
		}
	}
}

func TestFlip(t *testing.T) {
	t.Parallel()
	c := newChecker()
	for _, in := range smallStreams(t) {
		for i := range in {
			for _, flip := range []byte{1, 4, 16, 128, 255} {
				in[i] ^= flip
				c.compare(t, in, 1<<20)
				c.compareRaw(t, in[10:], 1<<20)
				in[i] ^= flip
			}
		}
	}
}

// randomBlock adds a dynamic block of n symbols with random codes.
func randomBlock(e *encoder, rng *rand.Rand, final uint64, n int) {
	lengths := randomLengths(rng, 257+rng.IntN(maxLits-256), endOfBlock)
	dists := canonical(randomLengths(rng, 2+rng.IntN(maxDists-1), 0))
	lits := canonical(lengths)
	e.header(final, lits.lengths, dists.lengths)
	for range n {
		if reach := min(len(e.plain), windowSize); rng.IntN(3) == 0 && reach > 0 {
			distance := 1 + rng.IntN(min(reach, 1<<rng.IntN(16)))
			e.match(lits, dists, 3+rng.IntN(1+rng.IntN(256)), distance)
			continue
		}
		if b := byte(rng.Uint32()); lits.lengths[b] > 0 {
			e.literal(lits, b)
		}
	}
	e.symbol(lits, endOfBlock)
}

// TestRandomCodes decodes blocks with codes that compressors do not make, up to
// 15 bits for frequent symbols.
func TestRandomCodes(t *testing.T) {
	t.Parallel()
	c := newChecker()
	rng := rand.New(rand.NewPCG(9, 9))
	for i := range 150 {
		e := new(encoder)
		for range rng.IntN(20) {
			if rng.IntN(4) == 0 {
				e.stored(0, strings.Repeat("stored", rng.IntN(5000)))
			}
			randomBlock(e, rng, 0, rng.IntN(5000))
		}
		randomBlock(e, rng, 1, rng.IntN(50))
		size := readSizes[i%len(readSizes)]
		got, err := c.decode(t, bytes.NewReader(e.member()), size)
		if err != nil || !bytes.Equal(got, e.plain) {
			t.Fatalf("stream %d by %d: %d bytes, %v, want %d", i, size, len(got), err, len(e.plain))
		}
	}
}

// TestEnds has a longest match begin at each place before the end of the buffer.
func TestEnds(t *testing.T) {
	t.Parallel()
	c := newChecker()
	lits, dists := fixedCodes()
	for prefix := 300; prefix < 300+260; prefix++ {
		e := new(encoder).stored(0, strings.Repeat("0123456789", 56)[:prefix]).bits(2, 3)
		for len(e.plain) < bufferSize+1000 {
			e.match(lits, dists, 258, 1+prefix%300)
		}
		e.symbol(lits, endOfBlock).stored(1, "the end, which is not too near")
		got, err := c.decode(t, bytes.NewReader(e.member()), readSizes[prefix%3])
		if err != nil || !bytes.Equal(got, e.plain) {
			t.Fatalf("decode with %d bytes before = %d bytes, %v, want %d", prefix, len(got), err, len(e.plain))
		}
	}
}

// TestAllocations checks that only making a Reader allocates.
func TestAllocations(t *testing.T) {
	e := new(encoder)
	rng := rand.New(rand.NewPCG(7, 7))
	for range 30 {
		randomBlock(e, rng, 0, 3000)
	}
	lits, _ := fixedCodes()
	e.bits(3, 3).symbol(lits, endOfBlock)
	in := bytes.NewReader(e.member())
	z := NewReader(in)
	buf := make([]byte, 1<<20)
	got := testing.AllocsPerRun(10, func() {
		in.Seek(0, io.SeekStart)
		z.Reset(in)
		for {
			if _, err := z.Read(buf); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
	if got != 0 {
		t.Errorf("allocations = %v, want 0", got)
	}
}

// TestReaderError checks that the reader's own error arrives as it is, behind all
// that was decoded before it.
func TestReaderError(t *testing.T) {
	t.Parallel()
	want := samples()["mix"]
	var b bytes.Buffer
	w := stdgzip.NewWriter(&b)
	_, _ = w.Write(want)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("pulled out")
	c := newChecker()
	for n := 0; n <= b.Len(); n += 1 + n/3 {
		for _, size := range readSizes {
			got, err := c.decode(t, io.MultiReader(bytes.NewReader(b.Bytes()[:n]), iotest.ErrReader(cause)), size)
			if err != cause { //nolint:errorlint // the same one
				t.Errorf("decode after %d bytes = %v, want %v", n, err, cause)
			}
			if !bytes.HasPrefix(want, got) || len(got) < n/2-300 {
				t.Errorf("decode of %d bytes = %d bytes", n, len(got))
			}
		}
	}
	_, err := c.decode(t, io.MultiReader(bytes.NewReader(b.Bytes()), iotest.ErrReader(cause)), 1<<20)
	if err != cause { //nolint:errorlint // the same one
		t.Errorf("decode before the end = %v, want %v", err, cause)
	}
	if _, err := c.decode(t, emptyReader{}, 1); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("decode of an empty reader = %v, want %v", err, io.ErrNoProgress)
	}
}

// emptyReader never has anything.
type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

// counter counts what is read, in all and at most at once.
type counter struct {
	r           io.Reader
	total, most int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.total += n
	c.most = max(c.most, n)
	return n, err
}

// TestAppetite checks how much a Read takes before it returns.
func TestAppetite(t *testing.T) {
	t.Parallel()
	e := new(encoder)
	for range 300 {
		e.stored(0, strings.Repeat("x", 9000)) // as much input as output
	}
	for range 400_000 {
		e.stored(0, "") // no output
	}
	member := e.stored(1, "end").member()
	for _, size := range readSizes[:4] {
		in := &counter{r: bytes.NewReader(member)}
		z := NewReader(in)
		buf := make([]byte, size)
		most := 0
		for last := 0; ; last = in.total {
			n, err := z.Read(buf)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(buf[:n]) != "end" {
				most = max(most, in.total-last)
			}
		}
		if in.most > InputSize {
			t.Errorf("read %d bytes at once, want at most %d", in.most, InputSize)
		}
		if most > maxReadInput+InputSize {
			t.Errorf("Read of %d took %d bytes, want at most %d", size, most, maxReadInput+InputSize)
		}
		if in.total != len(member) {
			t.Errorf("read %d bytes of %d", in.total, len(member))
		}
	}
}
