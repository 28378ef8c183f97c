package inflate

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// benchSize is the size of each image in bytes.
const benchSize = 32 << 20

// mixedImage is 60 % random and 40 % text, in pieces of 64 KiB.
var mixedImage = sync.OnceValue(func() []byte {
	const piece = 64 << 10
	source := rand.NewChaCha8([32]byte{1})
	rng := rand.New(source)
	words := make([]string, 2000)
	for i := range words {
		var b strings.Builder
		for range 2 + rng.IntN(9) {
			b.WriteByte("etaoinshrdlucmfwypvbgkjqxz"[rng.IntN(1+rng.IntN(26))])
		}
		words[i] = b.String()
	}
	b := make([]byte, benchSize)
	for i := 0; i < len(b); i += piece {
		part := b[i:min(len(b), i+piece)]
		if i/piece%5 < 3 {
			_, _ = source.Read(part) // never fails
			continue
		}
		for len(part) > 0 {
			part = part[copy(part, words[rng.IntN(1+rng.IntN(len(words)))]):]
			part = part[copy(part, " "):]
		}
	}
	return b
})

// binaryImage is the shared libraries and programs of this machine, or, if there
// are not enough, this test program.
var binaryImage = sync.OnceValue(func() []byte {
	var files []string
	for _, pattern := range []string{"/usr/lib/x86_64-linux-gnu/*.so*", "/usr/lib/aarch64-linux-gnu/*.so*", "/usr/bin/*"} {
		found, _ := filepath.Glob(pattern)
		files = append(files, found...)
	}
	if exe, err := os.Executable(); err == nil {
		files = append(files, exe)
	}
	var b []byte
	for _, name := range files {
		if len(b) >= benchSize {
			break
		}
		if fi, err := os.Lstat(name); err != nil || !fi.Mode().IsRegular() || fi.Size() > benchSize/4 {
			continue
		}
		content, err := os.ReadFile(name)
		if err == nil {
			b = append(b, content...)
		}
	}
	return b[:min(len(b), benchSize)]
})

// emptyImage is a file system with little in it.
var emptyImage = sync.OnceValue(func() []byte {
	b := make([]byte, benchSize)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		at := rng.IntN(len(b)/4096-8) * 4096
		copy(b[at:at+1+rng.IntN(20000)], mixedImage()[rng.IntN(benchSize/2):])
	}
	return b
})

func BenchmarkReader(b *testing.B) {
	images := []struct {
		name string
		make func() []byte
	}{
		{"mixed", mixedImage},
		{"binary", binaryImage},
		{"empty", emptyImage},
	}
	readers := []struct {
		name string
		open func(io.Reader) (io.Reader, error)
	}{
		{"ours", func(r io.Reader) (io.Reader, error) { return NewReader(r), nil }},
		{"klauspost", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		{"standard", func(r io.Reader) (io.Reader, error) { return stdgzip.NewReader(r) }},
	}
	for _, image := range images {
		plain := image.make()
		var packed bytes.Buffer
		w, err := stdgzip.NewWriterLevel(&packed, stdgzip.BestCompression)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(plain); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		for _, reader := range readers {
			b.Run(image.name+"/"+reader.name, func(b *testing.B) {
				buf := make([]byte, 1<<20)
				b.SetBytes(int64(len(plain)))
				b.ReportMetric(float64(packed.Len())/float64(len(plain)), "packed/plain")
				b.ReportAllocs()
				for b.Loop() {
					r, err := reader.open(bytes.NewReader(packed.Bytes()))
					if err != nil {
						b.Fatal(err)
					}
					n := 0
					for err == nil {
						var m int
						m, err = r.Read(buf)
						n += m
					}
					if !errors.Is(err, io.EOF) || n != len(plain) {
						b.Fatalf("read %d bytes, %v; want %d", n, err, len(plain))
					}
				}
			})
		}
	}
}
