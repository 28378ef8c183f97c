package artifact

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const (
	fuzzWindow = 1 << 20
	// fuzzOutput is how much of a stream is read. A stream may well hold more: it
	// is the archive in it that has an end.
	fuzzOutput = 4 << 20
)

// allocated returns how many bytes f allocates in total, which is at least what
// it holds at any time. Nothing else may run.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// fuzzStream checks one decompressor as this package sets it up: its errors are
// ours, its memory is bounded, it stops by itself, and what it accepts has been
// read to the last byte and reads the same in pieces.
func fuzzStream(f *testing.F, suffix string, limit uint64, more ...[]byte) {
	f.Helper()
	// Small seeds: the fuzzer takes its time to minimize large ones.
	good := pack(slices.Concat(noise[:50], payload[:300], make([]byte, 300)), suffix)
	bomb := pack(make([]byte, fuzzOutput*2), suffix)
	if suffix == ".xz" { // ours does not compress
		bomb = nil
	}
	for _, b := range slices.Concat([][]byte{
		nil, good, good[:len(good)-1], append(bytes.Clone(good), 0), append(bytes.Clone(good), good...), pack(nil, suffix), bomb,
		pack(good, suffix),
	}, more) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var out []byte
		var err error
		if got := allocated(func() { out, err = readStream(bytes.NewReader(in), suffix) }); got > limit {
			t.Fatalf("%d bytes allocated for %d bytes of input and %d of output, limit %d", got, len(in), len(out), limit)
		}
		if err != nil && !errors.Is(err, errTooMuch) {
			mustBeFault(t, err)
			return
		}
		again, againErr := readStream(&trickle{b: in}, suffix)
		if !bytes.Equal(again, out) || !errors.Is(againErr, err) {
			t.Fatalf("in pieces: %d bytes, %v; at once: %d bytes, %v", len(again), againErr, len(out), err)
		}
	})
}

// errTooMuch ends a stream behind fuzzOutput bytes.
var errTooMuch = errors.New("too much for a test")

// readStream returns the content of a stream. Its own memory does not count
// much: it keeps the beginning and the length.
func readStream(r io.Reader, suffix string) ([]byte, error) {
	s, err := newStream(newSource(r), suffix, fuzzWindow)
	if err != nil {
		return nil, err
	}
	var kept [8 << 10]byte
	buf := make([]byte, 64<<10)
	total := 0
	for {
		n, err := s.Read(buf)
		if n > 0 && err != nil {
			panic("bytes together with an error")
		}
		if total < len(kept) {
			copy(kept[total:], buf[:n])
		}
		if total += n; errors.Is(err, io.EOF) {
			return kept[:min(total, len(kept))], nil
		}
		if err != nil {
			return nil, err
		}
		if total > fuzzOutput {
			return kept[:], errTooMuch
		}
	}
}

// trickle gives odd pieces.
type trickle struct {
	b []byte
	n int
}

func (r *trickle) Read(p []byte) (int, error) {
	r.n = r.n%7 + 1
	n := copy(p[:min(len(p), r.n*r.n)], r.b)
	r.b = r.b[n:]
	if len(r.b) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func FuzzGzip(f *testing.F) {
	fuzzStream(f, ".gz", 1<<20,
		[]byte("\x1f\x8b\x08\x1e\x00\x00\x00\x00\x00\x03\x01\x00xname\x00comment\x00\x00\x00"),
		slices.Concat(pack(nil, ".gz"), pack(nil, ".gz"), pack([]byte("x"), ".gz")))
}

func FuzzXZ(f *testing.F) {
	good := pack(noise[:200], ".xz")
	fuzzStream(f, ".xz", 8<<20, setDictionary(16)(good), setDictionary(37)(good), setDictionary(40)(good),
		slices.Concat(good, make([]byte, 8), good))
}

func FuzzZstd(f *testing.F) {
	fuzzStream(f, ".zst", 8<<20,
		[]byte("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00"), []byte("\x28\xb5\x2f\xfd\x01\x50\x07\x01\x00\x00"),
		[]byte(strings.Repeat("\x50\x2a\x4d\x18\x00\x00\x00\x00", 3)))
}
