package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestFirstFile(t *testing.T) {
	a, err := Open(bytes.NewReader(rootfsParts().build()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it does not move on
		f, err := a.FirstFile()
		if err != nil || f != (File{"rootfs.ext4", int64(len(payload))}) {
			t.Fatalf("FirstFile = %v, %v", f, err)
		}
	}
	var got bytes.Buffer
	v, err := a.Copy(t.Context(), func(File) (io.Writer, error) { return &got, nil })
	if err != nil || !v.Valid() || !bytes.Equal(got.Bytes(), payload) {
		t.Fatalf("Copy after FirstFile: %v", err)
	}
	if _, err := a.FirstFile(); !errors.Is(err, ErrConsumed) {
		t.Errorf("FirstFile after Copy: %v, want ErrConsumed", err)
	}
	if v, err := a.Copy(t.Context(), nil); v.Valid() || !errors.Is(err, ErrConsumed) {
		t.Errorf("second Copy: %v, want ErrConsumed", err)
	}
}

func TestNoFiles(t *testing.T) {
	module := moduleParts()
	module.files = nil
	bare := emptyParts()
	bare.outer = func(l []entry) []entry { return l[:3] }
	for name, p := range map[string]*parts{"module": module, "empty": emptyParts(), "bare": bare} {
		a, err := Open(bytes.NewReader(p.build()), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if f, err := a.FirstFile(); !errors.Is(err, ErrNoFiles) || f != (File{}) {
				t.Errorf("%s: FirstFile = %v, %v, want ErrNoFiles", name, f, err)
			}
		}
		v, err := a.Copy(t.Context(), func(File) (io.Writer, error) { panic("no file to open") })
		if err != nil || !v.Valid() {
			t.Errorf("%s: Copy: %v", name, err)
		}
	}
}

// TestWriterErrors checks that the caller's own errors come back as they are,
// even ones that wrap an Error of this package.
func TestWriterErrors(t *testing.T) {
	errFull := fmt.Errorf("disk full: %w", &Error{Kind: Limit, Err: errors.New("other artifact")})
	for _, tt := range []struct {
		name string
		open func(File) (io.Writer, error)
		want error
	}{
		{"open", func(File) (io.Writer, error) { return nil, errFull }, errFull},
		{"write", func(File) (io.Writer, error) {
			return writerFunc(func([]byte) (int, error) { return 0, errFull }), nil
		}, errFull},
		{"short write", func(File) (io.Writer, error) {
			return writerFunc(func(p []byte) (int, error) { return len(p) - 1, nil }), nil
		}, io.ErrShortWrite},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Open(bytes.NewReader(rootfsParts().build()), Options{})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time nothing is read, and nothing forgotten
				v, err := a.Copy(t.Context(), tt.open)
				if v.Valid() || !errors.Is(err, tt.want) {
					t.Errorf("Copy = %v, want %v", err, tt.want)
				}
				if _, ok := err.(*Error); ok { //nolint:errorlint // the outermost error is the point
					t.Errorf("the writer's error came back as an *Error: %v", err)
				}
				if !strings.Contains(err.Error(), `"rootfs.ext4"`) {
					t.Errorf("error does not name the file: %v", err)
				}
			}
		})
	}
}

// TestCancel checks that a canceled context ends the copy between chunks.
func TestCancel(t *testing.T) {
	p := rootfsParts()
	p.files[0].data = make([]byte, 2*ChunkSize+1)
	b := p.build()
	ctx, cancel := context.WithCancel(t.Context())
	a, err := Open(bytes.NewReader(b), Options{})
	if err != nil {
		t.Fatal(err)
	}
	writes := 0
	v, err := a.Copy(ctx, func(File) (io.Writer, error) {
		return writerFunc(func(p []byte) (int, error) {
			writes++
			cancel()
			return len(p), nil
		}), nil
	})
	if v.Valid() || !errors.Is(err, context.Canceled) || kindOf(err) != 0 {
		t.Errorf("Copy: %v, want context.Canceled", err)
	}
	if writes != 1 {
		t.Errorf("%d writes, want 1", writes)
	}
}

// TestCancelInsideChunk checks that not even the chunk in progress is finished.
func TestCancelInsideChunk(t *testing.T) {
	p := rootfsParts()
	p.dataComp, p.files[0].data = "", bytes.Repeat(noise, 100)
	ctx, cancel := context.WithCancel(t.Context())
	b := bytes.NewReader(p.build())
	reads := 0
	a, err := Open(readerFunc(func(p []byte) (int, error) {
		if reads++; reads > 1 {
			cancel()
		}
		return b.Read(p[:min(len(p), 20000)])
	}), Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := a.Copy(ctx, func(File) (io.Writer, error) {
		return writerFunc(func(p []byte) (int, error) {
			t.Errorf("write of %d bytes", len(p))
			return len(p), nil
		}), nil
	})
	if v.Valid() || !errors.Is(err, context.Canceled) || kindOf(err) != 0 {
		t.Errorf("Copy: %v, want context.Canceled", err)
	}
	if reads != 2 {
		t.Errorf("%d reads, want 2", reads)
	}
}

func TestChunks(t *testing.T) {
	p := rootfsParts()
	p.files[0].data = make([]byte, 2*ChunkSize+3)
	var sizes []int
	a, err := Open(bytes.NewReader(p.build()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Copy(t.Context(), func(File) (io.Writer, error) {
		return writerFunc(func(p []byte) (int, error) { sizes = append(sizes, len(p)); return len(p), nil }), nil
	})
	if want := []int{ChunkSize, ChunkSize, 3}; err != nil || !slices.Equal(sizes, want) {
		t.Errorf("chunks = %v, %v, want %v", sizes, err, want)
	}
}

// TestVerified checks that a proof cannot be made by hand.
func TestVerified(t *testing.T) {
	var none *Verified
	for _, v := range []*Verified{none, {}} {
		if v.Valid() || v.ManifestDigest() != [32]byte{} {
			t.Errorf("%v proves something", v)
		}
	}
}

// TestMemory streams much more than it may hold.
func TestMemory(t *testing.T) {
	const size, limit = 6 << 20, 2 << 20
	p := rootfsParts()
	p.files[0].data = make([]byte, size)
	for _, comp := range []string{"", ".gz"} {
		p.dataComp = comp
		b := p.build()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := discard(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > limit {
			t.Errorf("%q: %d bytes allocated in total, want at most %d", comp, got, limit)
		}
	}
}

func discard(ctx context.Context, b []byte) (*Verified, error) {
	a, err := Open(bytes.NewReader(b), Options{})
	if err != nil {
		return nil, err
	}
	return a.Copy(ctx, func(File) (io.Writer, error) { return io.Discard, nil })
}
