package artifact

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestEveryByteCounts flips bits of signed artifacts, one at a time, and reads
// each. A changed artifact is refused, with two exceptions, both of which say
// nothing about the content and so must give the same header and the same
// payload:
//
//   - How the checksum of a tar header is spelled, outside the header archive,
//     which the manifest covers as it is. Writers differ: the
//     first digit may be "0" or a blank, the two bytes behind the digits NUL or
//     blank. Its value counts.
//   - Within the data entry, bits of the compressed stream that say nothing:
//     time, system and text flag of a gzip header, the unused bit of a zstd
//     header, filling bits, another coding of the same bytes. The archive in it
//     is the same bit by bit.
//
// So an artifact without compression has exactly three bits for each such
// tar header that may change, and so has the one with .xz. All eight bits of
// every byte take half a minute: set EVERY_BIT. Without it a byte has one bit
// flipped, and all eight where one of the exceptions could be. Under the race
// detector most bytes are left out.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	keys := testKeys()
	rsaKey := mustParseKey(t, "rsa", &keys.rsa.PublicKey)
	ecKey := mustParseKey(t, "ec", &keys.ecdsa.PublicKey)
	for _, tt := range []struct {
		name string
		make func() *parts
		comp string
		sign func([]byte) []byte
		key  *Key
	}{
		{"v3 none, ECDSA raw", rootfsParts, "", signed(signRaw), ecKey},
		{"v3 gzip, RSA", rootfsParts, ".gz", signed(signRSA), rsaKey},
		{"v2 zstd, ECDSA DER", v2Parts, ".zst", signed(signDER), ecKey},
		{"v2 xz, ECDSA raw", v2Parts, ".xz", signed(signRaw), ecKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := tt.make()
			p.files[0].data = slices.Concat(noise[:400], payload[:200])
			p.dataComp, p.sign = tt.comp, tt.sign
			if tt.comp != ".xz" {
				p.headerComp = tt.comp
			}
			flipEveryByte(t, p.build(), Options{Keys: []*Key{tt.key}}, tt.comp)
		})
	}
}

func flipEveryByte(t *testing.T, b []byte, opts Options, comp string) {
	t.Helper()
	good := mustRead(t, b, opts)
	spelling := map[int]byte{}
	var from, to int // content of the data entry
	walkTar(b, 0, spelling, func(name string, start, end int) {
		if strings.HasPrefix(name, "data/") {
			from, to = start, end
		}
	})
	if comp == "" {
		walkTar(b[from:to], from, spelling, func(string, int, int) {})
	}
	plain := unpacked(b[from:to], comp)
	allBits := os.Getenv("EVERY_BIT") != ""
	accepted := 0
	for at := range b {
		other, isSpelling := spelling[at]
		if raceDetector && at%29 != 0 && !isSpelling {
			continue
		}
		inStream := comp != "" && from <= at && at < to
		for bit := range 8 {
			if !allBits && bit != at%8 && !isSpelling && (!inStream || comp == ".xz") {
				continue
			}
			changed := bytes.Clone(b)
			changed[at] ^= 1 << bit
			res := readAll(t.Context(), bytes.NewReader(changed), opts)
			if res.err != nil {
				if _, ok := res.err.(*Error); !ok || res.proof.Valid() { //nolint:errorlint // nothing wraps it
					t.Fatalf("byte %d bit %d: error is %T: %v", at, bit, res.err, res.err)
				}
				continue
			}
			accepted++
			switch {
			case isSpelling && changed[at] == other:
			case inStream && bytes.Equal(unpacked(changed[from:to], comp), plain):
			default:
				t.Errorf("byte %d (offset %d of its block): accepted with %#02x for %#02x", at, at%blockSize, changed[at], b[at])
			}
			if diff := cmp.Diff(good.header, res.header, cmpopts.IgnoreFields(Header{}, "RawDigest")); diff != "" {
				t.Errorf("byte %d: another header (-want +got):\n%s", at, diff)
			}
			if !cmp.Equal(good.files, res.files) {
				t.Errorf("byte %d: another payload", at)
			}
			if sameRaw := good.header.RawDigest == res.header.RawDigest; sameRaw != (at >= from) {
				t.Errorf("byte %d: same RawDigest = %v, but the data begins at %d", at, sameRaw, from)
			}
		}
	}
	// The exceptions are exactly these: each of them is accepted.
	if (comp == "" || comp == ".xz") && accepted != len(spelling) {
		t.Errorf("%d changes were accepted, want %d", accepted, len(spelling))
	}
}

// walkTar walks over a tar by hand and calls entry with each name and where its
// content is. It adds to spelling what the places of a header's checksum may
// hold as well; b begins at offset base of the artifact.
func walkTar(b []byte, base int, spelling map[int]byte, entry func(name string, from, to int)) {
	for at := 0; !allZero(b[at : at+blockSize]); {
		h := b[at : at+blockSize]
		spelling[base+at+tarChecksumOff] = ' '
		spelling[base+at+tarChecksumEnd-2] = ' '
		spelling[base+at+tarChecksumEnd-1] = 0
		size, err := tarNumber(h[tarSizeOff:tarSizeEnd])
		if err != nil {
			panic(err) // the artifact is a good one
		}
		at += blockSize
		entry(string(h[:bytes.IndexByte(h, 0)]), at, at+int(size))
		at += int((size + blockSize - 1) &^ (blockSize - 1))
	}
}

// unpacked returns what a compressed stream holds.
func unpacked(b []byte, suffix string) []byte {
	s, err := newStream(bytes.NewReader(b), suffix, DefaultMaxWindow)
	if err != nil {
		return nil
	}
	plain, err := io.ReadAll(s)
	if err != nil {
		return nil
	}
	return plain
}
