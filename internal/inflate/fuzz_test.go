package inflate

import (
	"bytes"
	"compress/gzip"
	"testing"
)

// FuzzInflate checks that on any stream ours has the verdict and the content of
// compress/flate and klauspost/compress, as a deflate stream and as gzip.
func FuzzInflate(f *testing.F) {
	for _, level := range []int{gzip.HuffmanOnly, gzip.NoCompression, gzip.BestSpeed, gzip.BestCompression} {
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, level)
		if err != nil {
			f.Fatal(err)
		}
		w.Name, w.Comment, w.Extra = "name", "comment", []byte("extra")
		for range 20 {
			_, _ = w.Write([]byte("abcabcabc, a quick brown fox, aaaaaaaaaaaaaa"))
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes(), uint16(1))
		f.Add(b.Bytes()[10+7+5+8:], uint16(4000))
		f.Add(append(b.Bytes(), b.Bytes()...), uint16(65535))
	}
	lits, dists := fixedCodes()
	e := new(encoder).bits(3, 3).literal(lits, 'x')
	e.match(lits, dists, 258, 1)
	e.match(lits, dists, 3, 200)
	f.Add(e.symbol(lits, endOfBlock).align().out, uint16(100))
	c := newChecker()
	f.Fuzz(func(t *testing.T, in []byte, size uint16) {
		n := int(size) * 4 // up to where Read decodes into its buffer
		if n == 0 {
			n = 1
		}
		c.compare(t, in, n)
		c.compareRaw(t, in, n)
	})
}
