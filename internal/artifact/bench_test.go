package artifact

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// benchSize is the size of the image in bytes.
const benchSize = 64 << 20

// benchImage is what a root file system is like to a decompressor: half of it
// does not compress, half of it is text, in pieces of 64 KiB.
var benchImage = sync.OnceValue(func() []byte {
	const piece = 64 << 10
	source := rand.NewChaCha8([32]byte{1})
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 2+source.Uint64()%9)
		for j := range words[i] {
			words[i][j] = "etaoinshrdlucmfwypvbgkjqxz"[source.Uint64()%26*(source.Uint64()%26)/26]
		}
	}
	b := make([]byte, 0, benchSize)
	for len(b) < benchSize {
		noise := make([]byte, piece)
		_, _ = source.Read(noise) // never fails
		b = append(b, noise...)
		for end := len(b) + piece; len(b) < end; {
			b = append(b, words[source.Uint64()%64*(source.Uint64()%64)]...)
			b = append(b, ' ')
		}
	}
	return b[:benchSize]
})

// BenchmarkCopy verifies an artifact of 64 MiB whose payload goes nowhere. The
// bytes that are counted are those of the image.
func BenchmarkCopy(b *testing.B) {
	for _, bb := range []struct{ name, suffix string }{{"none", ""}, {"gzip", ".gz"}, {"xz", ".xz"}, {"zstd", ".zst"}} {
		b.Run(bb.name, func(b *testing.B) {
			p := rootfsParts()
			p.files[0].data = benchImage()
			p.dataComp = bb.suffix
			if bb.suffix == ".xz" { // the test writer does not compress
				p.dataBlob = func([]byte) []byte { return compressXZ(b, tarOf(p.files)) }
			}
			in := p.build()
			b.SetBytes(benchSize)
			b.ReportAllocs()
			for b.Loop() {
				a, err := Open(bytes.NewReader(in), Options{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := a.Copy(b.Context(), func(File) (io.Writer, error) { return io.Discard, nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// compressXZ has the real tool compress.
func compressXZ(b *testing.B, plain []byte) []byte {
	b.Helper()
	if _, err := exec.LookPath("xz"); err != nil {
		b.Skip("xz is not installed")
	}
	name := filepath.Join(b.TempDir(), "image")
	if err := os.WriteFile(name, plain, 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), "xz", "-1", "-T1", "-c", name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	return out
}
