package xz_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/usb-updater/usb-updater/internal/xz"
)

// TestTruncated cuts small streams at each byte.
func TestTruncated(t *testing.T) {
	for name, in := range samples(t) {
		plain, err := ours(in, 64*mib)
		if err != nil {
			t.Fatal(err)
		}
		for n := range in {
			got, err := ours(in[:n], 64*mib)
			if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(plain, got) {
				t.Errorf("%s cut at %d = %q, %v, want unexpected EOF", name, n, got, err)
			}
		}
	}
}

// TestDamaged flips each bit of small streams. The other decoder accepts the
// same ones, and they decode to the same. The tool is asked with one bit of each
// byte of one stream. There is one exception: XZ Embedded does not look at the
// first byte of an LZMA chunk, which is always zero and which no check value
// covers. This package refuses another one, as the tool does.
func TestDamaged(t *testing.T) {
	tool, noTool := exec.LookPath("xz")
	for name, in := range samples(t) {
		if name == "large dictionary" {
			continue // it costs time and is another's twin
		}
		for at := range in {
			for bit := range 8 {
				damaged := slices.Clone(in)
				damaged[at] ^= 1 << bit
				got, err := ours(damaged, mib)
				if err != nil {
					mustBeTyped(t, err)
				}
				want, wantErr := theirs(damaged, mib)
				if first := isFirstByte(err); !first && ((err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want)) {
					t.Errorf("%s byte %d bit %d = %d bytes, %v, the other decoder says %d bytes, %v", name, at, bit, len(got), err, len(want), wantErr)
				}
				if noTool != nil || bit != at%8 || name != "filters" {
					continue
				}
				cmd := exec.CommandContext(t.Context(), tool, "-t", "-qq", "--memlimit=2MiB")
				cmd.Stdin = bytes.NewReader(damaged)
				if toolErr := cmd.Run(); (err == nil) != (toolErr == nil) {
					t.Errorf("%s byte %d bit %d: %v, the tool says %v", name, at, bit, err, toolErr)
				}
			}
		}
	}
}

// isFirstByte reports whether a stream was refused for the first byte of a chunk.
func isFirstByte(err error) bool {
	e, ok := errors.AsType[*xz.Error](err)
	return ok && e.Reason == "beginning of an LZMA chunk"
}

// TestSourceErrors has the source fail behind each byte of a stream.
func TestSourceErrors(t *testing.T) {
	in := samples(t)["blocks"]
	broken := errors.New("the stick was pulled")
	for n := range len(in) + 1 {
		z := xz.NewReader(io.MultiReader(bytes.NewReader(in[:n]), iotest.ErrReader(broken)), mib*64)
		_, err := io.ReadAll(z)
		if err != broken { //nolint:errorlint // it must be as it was
			t.Fatalf("error behind byte %d is %v, want the source's", n, err)
		}
		if n, again := z.Read(make([]byte, 1)); n != 0 || again != err { //nolint:errorlint // as above
			t.Fatalf("second read = %d, %v, want the same error", n, again)
		}
	}
}

// TestIdleSource gives nothing for ever.
func TestIdleSource(t *testing.T) {
	in := samples(t)["crc64"]
	_, err := io.ReadAll(xz.NewReader(io.MultiReader(bytes.NewReader(in[:50]), idle{}), mib*64))
	if !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error is %v, want no progress", err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// TestReadNothing reads into an empty buffer, which is no progress and no error.
func TestReadNothing(t *testing.T) {
	z := xz.NewReader(bytes.NewReader(nil), mib)
	if n, err := z.Read(nil); n != 0 || err != nil {
		t.Errorf("Read(nil) = %d, %v, want 0, nil", n, err)
	}
}

// TestUnknownCheck: content that cannot be verified is not given.
func TestUnknownCheck(t *testing.T) {
	in := []byte("\xfd7zXZ\x00")
	in = append(in, withCRC([]byte{0, 2})...)
	out, err := ours(append(in, make([]byte, 100)...), mib)
	if len(out) > 0 || !errors.Is(err, xz.ErrUnsupportedCheck) || !errors.Is(err, xz.ErrUnsupported) {
		t.Errorf("decode = %q, %v, want ErrUnsupportedCheck", out, err)
	}
	mustBeTyped(t, err)
}

// TestFooter changes what the footer says and makes its checksum right again.
func TestFooter(t *testing.T) {
	for _, at := range []int{4, 8, 9} { // backward size, stream flags, check
		in := slices.Clone(samples(t)["none"])
		footer := in[len(in)-12:]
		footer[at] ^= 1
		copy(footer, binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(footer[4:10])))
		if _, err := ours(in, mib); !errors.Is(err, xz.ErrCorrupt) {
			t.Errorf("byte %d of the footer changed: error is %v, want ErrCorrupt", at, err)
		}
	}
}

// TestDistance reaches back further than the dictionary that is declared, but
// not further than the ring in memory, nor than what was decoded.
func TestDistance(t *testing.T) {
	noise := make([]byte, 4096+20)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	plain := slices.Concat(noise, noise[:200])
	in := compress(t, plain, "--check=none", "--lzma2=dict=8KiB")
	if _, err := ours(in, mib); err != nil {
		t.Fatal(err)
	}
	header := in[12:24]
	if header[4] != 2 {
		t.Fatalf("block header % x, want a dictionary of 8 KiB at byte 4", header)
	}
	header[4] = 0 // 4 KiB
	copy(header[8:], binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(header[:8])))
	if out, err := ours(in, mib); !errors.Is(err, xz.ErrCorrupt) {
		t.Errorf("decode = %d bytes, %v, want ErrCorrupt", len(out), err)
	}
}
