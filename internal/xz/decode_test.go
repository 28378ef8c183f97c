package xz_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/usb-updater/usb-updater/internal/xz"
)

// TestDecodeTool decodes what the tool makes of one text in many ways.
func TestDecodeTool(t *testing.T) {
	plain := text(700_000)
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"-0", []string{"-0"}},
		{"-1", []string{"-1"}},
		{"-3", []string{"-3"}},
		{"-6", []string{"-6"}},
		{"-9e", []string{"-9e"}},
		{"no check", []string{"--check=none"}},
		{"crc32", []string{"--check=crc32"}},
		{"sha256", []string{"--check=sha256"}},
		{"blocks", []string{"-T1", "--block-size=100000"}},
		{"blocks with sizes", []string{"-T2", "--block-size=100001"}},
		{"dictionary of 4 KiB", []string{"--lzma2=dict=4KiB"}},
		{"dictionary of 48 KiB", []string{"--lzma2=dict=48KiB,nice=273"}},
		{"dictionary of 256 KiB", []string{"--lzma2=dict=256KiB"}},
		{"dictionary of 384 KiB", []string{"--lzma2=dict=384KiB"}},
		{"dictionary of 1 MiB", []string{"--lzma2=dict=1MiB"}},
		{"lc 4", []string{"--lzma2=lc=4,lp=0,pb=0"}},
		{"lp 4", []string{"--lzma2=lc=0,lp=4,pb=4"}},
		{"lc 2 lp 2", []string{"--lzma2=lc=2,lp=2,pb=1"}},
		{"fast", []string{"--lzma2=mode=fast,mf=hc3,nice=5"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mustDecode(t, compress(t, plain, tt.args...), plain)
		})
	}
}

// mustDecode checks that in, as it is and byte by byte, decodes to want.
func mustDecode(t *testing.T, in, want []byte) {
	t.Helper()
	got, err := ours(in, 64<<20)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("decode = %d bytes, %v, want %d", len(got), err, len(want))
	}
	z := xz.NewReader(iotest.OneByteReader(iotest.DataErrReader(bytes.NewReader(in))), 64<<20)
	got, err = io.ReadAll(iotest.HalfReader(z))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("decode byte by byte = %d bytes, %v, want %d", len(got), err, len(want))
	}
}

// TestFilters undoes each filter on a program and on noise that is full of
// opcodes.
func TestFilters(t *testing.T) {
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	plain := slices.Clone(program[len(program)/3:][:100_001])
	source := rand.New(rand.NewPCG(1, 2))
	for range 30_000 {
		plain = append(plain, "\x00\x00\xff\xff\xe8\xe9\xeb\x48\x01\x40\x7f\xf0\xf8\x94\x90\x50"[source.IntN(16)])
	}
	for range 10_000 {
		plain = binary.LittleEndian.AppendUint32(plain, []uint32{0x94, 0x97, 0x90, 0xb0, 0xeb}[source.IntN(5)]<<24|source.Uint32()>>8)
		plain = append(plain, 0x10|byte(source.IntN(16)), byte(source.Uint32()), 0, 0, 0, 0xa0, byte(source.Uint32()), 0x50)
	}
	for _, tt := range [][]string{
		{"--x86"},
		{"--arm"},
		{"--armthumb"},
		{"--arm64"},
		{"--powerpc"},
		{"--ia64"},
		{"--sparc"},
		{"--delta=dist=1"},
		{"--delta=dist=7"},
		{"--delta=dist=256"},
		{"--x86=start=12345"},
		{"--arm=start=4294967040"},
		{"--arm64=start=4096"},
		{"--ia64=start=64"},
		{"--delta=dist=4", "--x86", "--arm"},
		{"--ia64", "--x86", "--armthumb"},
		{"--x86", "--x86", "--x86"},
	} {
		t.Run(tt[0], func(t *testing.T) {
			args := append(tt, "--lzma2=preset=0")
			for _, n := range []int{len(plain), 21, 5, 4} {
				mustDecode(t, compress(t, plain[len(plain)-n:], args...), plain[len(plain)-n:])
			}
		})
	}
}

// TestStreams reads several streams and what may be between them.
func TestStreams(t *testing.T) {
	one := samples(t)
	a, b, none := one["crc64"], one["none"], one["empty"]
	zeros := make([]byte, 400_000)
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	for _, tt := range []struct {
		name string
		in   []byte
		want error // io.EOF: a good one
	}{
		{"one", a, io.EOF},
		{"no block", none, io.EOF},
		{"two", join(a, b), io.EOF},
		{"padding", join(a, zeros[:4], b, zeros[:8], none, zeros[:12]), io.EOF},
		{"long padding", join(a, zeros), io.EOF},
		{"many", bytes.Repeat(join(b, none), 500), io.EOF},
		{"nothing", nil, io.ErrUnexpectedEOF},
		{"padding first", join(zeros[:4], a), xz.ErrCorrupt},
		{"odd padding", join(a, zeros[:3]), xz.ErrCorrupt},
		{"odd padding between", join(a, zeros[:5], b), xz.ErrCorrupt},
		{"one byte behind", join(a, []byte("x")), xz.ErrCorrupt},
		{"three bytes behind", join(a, []byte("\xfd7x")), xz.ErrCorrupt},
		{"bytes behind", join(a, []byte("a text that is no stream")), xz.ErrCorrupt},
		{"bytes behind padding", join(a, zeros[:8], []byte("x")), xz.ErrCorrupt},
		{"second cut", join(a, b[:len(b)-1]), io.ErrUnexpectedEOF},
		{"second cut in its header", join(a, b[:3]), io.ErrUnexpectedEOF},
		{"gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), xz.ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := ours(tt.in, mib)
			if !errors.Is(err, tt.want) && (err != nil || !errors.Is(tt.want, io.EOF)) {
				t.Fatalf("error is %v, want %v", err, tt.want)
			}
			if err != nil {
				mustBeTyped(t, err)
				return
			}
			if want, err := theirs(tt.in, mib); err != nil || !bytes.Equal(out, want) {
				t.Errorf("decode = %d bytes, the other decoder says %d bytes, %v", len(out), len(want), err)
			}
		})
	}
}

// TestChunks goes through the rules of LZMA2, with chunks laid down by hand.
func TestChunks(t *testing.T) {
	a := stored(1, "abc")
	for _, tt := range []struct {
		name string
		s    stream
		want error
	}{
		{"stored", stream{data: []byte(a + "\x00"), content: 3}, nil},
		{"two stored", stream{data: []byte(a + stored(2, "defg") + "\x00"), content: 7}, nil},
		{"reset again", stream{data: []byte(a + a + "\x00"), content: 6}, nil},
		{"nothing", stream{data: []byte("\x00")}, nil},
		{"no end", stream{data: []byte(a), content: 3}, nil}, // block padding ends it
		{"no reset", stream{data: []byte(stored(2, "abc") + "\x00"), content: 3}, xz.ErrCorrupt},
		{"control 3", stream{data: []byte(stored(3, "abc") + "\x00"), content: 3}, xz.ErrCorrupt},
		{"control 0x7f", stream{data: []byte(a + stored(0x7f, "abc") + "\x00"), content: 6}, xz.ErrCorrupt},
		{"LZMA without properties", stream{data: []byte(a + "\x80\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00"), content: 4}, xz.ErrCorrupt},
		{"LZMA without reset", stream{data: []byte("\xc0\x00\x00\x00\x05\x5d\x00\x00\x00\x00\x00\x00\x00"), content: 1}, xz.ErrCorrupt},
		{"LZMA of four bytes", stream{data: []byte("\xe0\x00\x00\x00\x03\x5d\x00\x00\x00\x00\x00"), content: 1}, xz.ErrCorrupt},
		{"first byte not zero", stream{data: []byte("\xe0\x00\x00\x00\x05\x5d\x01\x00\x00\x00\x00\x00\x00"), content: 1}, xz.ErrCorrupt},
		{"lc + lp = 5", stream{data: []byte("\xe0\x00\x00\x00\x05\x0d\x00\x00\x00\x00\x00\x00\x00"), content: 1}, xz.ErrCorrupt},
		{"pb = 5", stream{data: []byte("\xe0\x00\x00\x00\x05\xe1\x00\x00\x00\x00\x00\x00\x00"), content: 1}, xz.ErrCorrupt},
		{"match before the beginning", stream{data: []byte("\xe0\x00\x03\x00\x0a\x5d\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00"), content: 4}, xz.ErrCorrupt},

		{"sizes said", stream{data: []byte(a + "\x00"), content: 3, flags: 0xc0, declared: []uint64{7, 3}}, nil},
		{"less data than said", stream{data: []byte(a + "\x00"), content: 3, flags: 0x40, declared: []uint64{8}}, xz.ErrCorrupt},
		{"more data than said", stream{data: []byte(a + "\x00"), content: 3, flags: 0x40, declared: []uint64{6}}, xz.ErrCorrupt},
		{"no data said", stream{data: []byte(a + "\x00"), content: 3, flags: 0x40, declared: []uint64{0}}, xz.ErrCorrupt},
		{"less content than said", stream{data: []byte(a + "\x00"), content: 3, flags: 0x80, declared: []uint64{4}}, xz.ErrCorrupt},
		{"more content than said", stream{data: []byte(a + "\x00"), content: 3, flags: 0x80, declared: []uint64{2}}, xz.ErrCorrupt},
		{"other content in the index", stream{data: []byte(a + "\x00"), content: 4}, xz.ErrCorrupt},
		{"other data in the index", stream{data: []byte(a + "\x00"), content: 3, dataInIdx: 6}, xz.ErrCorrupt},

		{"reserved block flag", stream{data: []byte(a + "\x00"), content: 3, flags: 0x04}, xz.ErrUnsupported},
		{"unknown filter", stream{data: []byte(a + "\x00"), content: 3, filters: []byte("\x7f\x00" + lzma2), count: 2}, xz.ErrUnsupported},
		{"LZMA2 twice", stream{data: []byte(a + "\x00"), content: 3, filters: []byte(lzma2 + lzma2), count: 2}, xz.ErrUnsupported},
		{"LZMA2 not last", stream{data: []byte(a + "\x00"), content: 3, filters: []byte(lzma2 + "\x04\x00"), count: 2}, xz.ErrUnsupported},
		{"no LZMA2", stream{data: []byte(a + "\x00"), content: 3, filters: []byte("\x03\x01\x00")}, xz.ErrUnsupported},
		{"four filters", stream{data: []byte(a + "\x00"), content: 3, filters: []byte("\x03\x01\x00\x04\x00\x04\x00" + lzma2), count: 4}, nil},
		{"delta without distance", stream{data: []byte(a + "\x00"), content: 3, filters: []byte("\x03\x00" + lzma2), count: 2}, xz.ErrUnsupported},
		{"unaligned start", stream{data: []byte(a + "\x00"), content: 3, filters: []byte("\x07\x04\x02\x00\x00\x00" + lzma2), count: 2}, xz.ErrUnsupported},
		{"filter cut", stream{data: []byte(a + "\x00"), content: 3, filters: []byte("\x21\x7f\x00")}, xz.ErrCorrupt},
		{"padding of the header", stream{data: []byte(a + "\x00"), content: 3, filters: []byte(lzma2 + "\x00\x00\x01")}, xz.ErrUnsupported},
		{"dictionary property 41", stream{data: []byte(a + "\x00"), content: 3, filters: []byte("\x21\x01\x29")}, xz.ErrUnsupported},
		{"dictionary of 1.5 MiB", stream{data: []byte(a + "\x00"), content: 3, filters: []byte("\x21\x01\x11")}, xz.ErrMemlimit},
		{"dictionary of 4 GiB", stream{data: []byte(a + "\x00"), content: 3, filters: []byte("\x21\x01\x28")}, xz.ErrMemlimit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := tt.s.build()
			out, err := ours(in, mib)
			want, wantErr := theirs(in, mib)
			if tt.name == "first byte not zero" { // theirs does not look
				want, wantErr = nil, io.EOF
			}
			if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(out, want) {
				t.Fatalf("decode = %q, %v, the other decoder says %q, %v", out, err, want, wantErr)
			}
			if tt.name == "no end" {
				return
			}
			if !errors.Is(err, tt.want) {
				t.Fatalf("error is %v, want %v", err, tt.want)
			}
			if err != nil {
				mustBeTyped(t, err)
			}
		})
	}
}
