package xz_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/usb-updater/usb-updater/internal/xz"
)

// fuzzOutput is how much of a stream is read, in bytes.
const fuzzOutput = 1 << 20

// decodeSome decodes up to fuzzOutput bytes.
func decodeSome(r io.Reader) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, fuzzOutput))
}

// FuzzXZ checks whole streams: no panic, typed errors, bounded memory, the same
// in pieces, and the verdict and the content of the other decoder.
func FuzzXZ(f *testing.F) {
	for _, b := range samples(f) {
		f.Add(b)
		f.Add(append(bytes.Clone(b), b...))
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var got []byte
		var err error
		if n := allocated(func() { got, err = decodeSome(xz.NewReader(bytes.NewReader(in), 64<<10)) }); n > 8<<20 {
			t.Fatalf("%d bytes allocated for %d bytes of input", n, len(in))
		}
		if err != nil {
			mustBeTyped(t, err)
		}
		again, againErr := decodeSome(xz.NewReader(iotest.OneByteReader(bytes.NewReader(in)), 64<<10))
		if (err == nil) != (againErr == nil) || !bytes.Equal(got, again) {
			t.Fatalf("in pieces: %d bytes, %v; at once: %d bytes, %v", len(again), againErr, len(got), err)
		}
		if isFirstByte(err) || len(got) == fuzzOutput {
			return
		}
		want, wantErr := theirs(in, 64<<10)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("decode = %d bytes, %v, the other decoder says %d bytes, %v", len(got), err, len(want), wantErr)
		}
	})
}

// FuzzLZMA2 checks the data of a block, which no checksum guards here. The
// stream around it is right if the other decoder makes it to the end.
func FuzzLZMA2(f *testing.F) {
	f.Add([]byte(stored(1, "abc")+"\x00"), byte(0))
	f.Add([]byte(stored(1, "abc")+stored(2, "abcdef")+"\x00"), byte(1))
	f.Add(samples(f)["crc64"][24:24+0x79], byte(0))
	f.Add(samples(f)["none"][24:24+0x1c], byte(2))
	f.Add([]byte(stored(1, strings.Repeat("0", 31)+"X"+strings.Repeat("0", 17))+"0"), byte(3)) // ends in a call of IA-64
	f.Fuzz(func(t *testing.T, data []byte, filter byte) {
		s := stream{data: data}
		filters := []string{"", "\x03\x01\x02", "\x04\x00", "\x06\x00", "\x08\x00"}
		chosen := filters[int(filter)%len(filters)]
		branches := chosen != "" && chosen[0] != 0x03
		if chosen != "" {
			s.filters, s.count = []byte(chosen+lzma2), 2
		}
		guess, _ := theirs(s.build(), 64<<10)
		s.content = len(guess)
		in := s.build()
		got, err := ours(in, 64<<10)
		if err != nil {
			mustBeTyped(t, err)
		}
		want, wantErr := theirs(in, 64<<10)
		if isFirstByte(err) {
			return
		}
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("decode = %d bytes, %v, the other decoder says %d bytes, %v", len(got), err, len(want), wantErr)
		}
		// Of damaged data both give a beginning of the same bytes, unless there is a
		// branch filter: the other decoder does not run it on the last bytes.
		if branches {
			return
		}
		if n := min(len(got), len(want)); !bytes.Equal(got[:n], want[:n]) {
			t.Fatalf("decode = %d bytes, %v, the other decoder says %d other bytes, %v", len(got), err, len(want), wantErr)
		}
	})
}
