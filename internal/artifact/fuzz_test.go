package artifact

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// openLimit is what reading a small artifact may allocate in total, with all
// windows and buffers, and with what a bomb makes the test's writer keep.
const openLimit = 64 << 20

// FuzzOpen checks that no input panics, that every refusal is an Error of one
// line, and that what is accepted says the same when read again.
func FuzzOpen(f *testing.F) {
	small := func(p *parts) *parts {
		for i := range p.files {
			p.files[i].data = p.files[i].data[:min(len(p.files[i].data), 100)]
		}
		return p
	}
	for _, comp := range []string{"", ".gz", ".xz", ".zst"} {
		p := small(rootfsParts())
		p.headerComp, p.dataComp = comp, comp
		f.Add(p.build())
	}
	signedParts := small(rootfsParts())
	signedParts.sign = signed(signRaw)
	paxParts := small(rootfsParts())
	paxParts.outer = setPAX("", pax("mtime", "1.5"))
	for _, p := range []*parts{small(v2Parts()), small(moduleParts()), emptyParts(), signedParts, paxParts} {
		f.Add(p.build())
	}
	f.Add(make([]byte, 2*blockSize))
	f.Fuzz(func(t *testing.T, in []byte) {
		opts := Options{MaxWindow: 1 << 20}
		var res result
		if got := allocated(func() { res = readAll(t.Context(), bytes.NewReader(fixed(in)), opts) }); got > openLimit {
			t.Fatalf("%d bytes allocated, limit %d", got, openLimit)
		}
		if res.err != nil {
			mustBeFault(t, res.err)
			return
		}
		if !res.proof.Valid() || res.header.Name == "" || len(res.files) != len(res.header.Files) {
			t.Fatalf("accepted: %+v, %d files", res.header, len(res.files))
		}
		if h := res.header; h.RawSize > MaxRawSize || sha256.Sum256(fixed(in)[:h.RawSize]) != h.RawDigest {
			t.Fatalf("the first %d bytes do not have the digest %x", h.RawSize, h.RawDigest)
		}
		again := readAll(t.Context(), bytes.NewReader(fixed(in)), opts)
		if again.err != nil || again.header.RawDigest != res.header.RawDigest {
			t.Fatalf("second read: %v", again.err)
		}
	})
}

// fixed corrects the checksums of outer tar headers, so that a changed header
// gets past the first check.
func fixed(in []byte) []byte {
	in = bytes.Clone(in)
	for at := 0; at+blockSize <= len(in); {
		h := in[at : at+blockSize]
		if allZero(h) {
			break
		}
		sealHeader(h)
		size, err := tarNumber(h[tarSizeOff:tarSizeEnd])
		if err != nil || size > int64(len(in)) {
			break
		}
		at += blockSize + int((size+blockSize-1)&^(blockSize-1))
	}
	return in
}

// FuzzDecodeObject checks that the JSON layer takes no document that it would
// not take back.
func FuzzDecodeObject(f *testing.F) {
	for _, s := range []string{goodInfo, goodTypeInfo, `{"a":"\ud83d\ude00"}`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, `{"a":[[[]]]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := decodeObject("fuzz", in)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("error is %T, want *Error: %v", err, err)
			}
			return
		}
		out, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeObject("fuzz", out)
		if err != nil || !cmp.Equal(again, o) {
			t.Fatalf("second read = %v, %v; first = %v", again, err, o)
		}
	})
}
