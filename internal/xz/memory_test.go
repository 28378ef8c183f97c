package xz_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/usb-updater/usb-updater/internal/xz"
)

// TestMemory: a small stream costs little, whatever dictionary it declares; a
// long one costs the dictionary, and no stream more than 1 MiB beside it.
func TestMemory(t *testing.T) {
	long := bytes.Repeat(text(200_000), 60)
	for _, tt := range []struct {
		name  string
		in    []byte
		max   uint64
		plain int
	}{
		{"small, dictionary of 64 MiB", samples(t)["large dictionary"], mib, 406},
		{"small, filters", samples(t)["filters"], mib, 136},
		{"long, dictionary of 64 MiB", compress(t, long, "-0", "--lzma2=preset=0,dict=64MiB"), 65 * mib, len(long)},
		{"long, dictionary of 64 MiB, size known", compress(t, long, "-T2", "--block-size=12000000", "--lzma2=preset=0,dict=64MiB"), uint64(len(long)) + mib, len(long)},
		{"long, dictionary of 64 KiB", compress(t, long, "--lzma2=preset=0,dict=64KiB"), mib, len(long)},
		{"blocks, dictionary of 1 MiB", compress(t, long, "-T1", "--block-size=3000000", "--lzma2=preset=0,dict=1MiB"), 2 * mib, len(long)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var n int64
			var err error
			got := allocated(func() { n, err = io.Copy(io.Discard, xz.NewReader(bytes.NewReader(tt.in), 64*mib)) })
			if err != nil || int(n) != tt.plain {
				t.Fatalf("decode = %d bytes, %v, want %d", n, err, tt.plain)
			}
			if got > tt.max {
				t.Errorf("%d bytes allocated, want at most %d", got, tt.max)
			}
		})
	}
}

// TestMemlimit: a dictionary that is too large is refused before anything is
// allocated for it.
func TestMemlimit(t *testing.T) {
	in := samples(t)["large dictionary"] // declares 64 MiB
	if _, err := ours(in, 64*mib); err != nil {
		t.Fatal(err)
	}
	var err error
	got := allocated(func() { _, err = ours(in, 64*mib-1) })
	if !errors.Is(err, xz.ErrMemlimit) {
		t.Errorf("error is %v, want ErrMemlimit", err)
	}
	mustBeTyped(t, err)
	if got > mib/2 {
		t.Errorf("%d bytes allocated before the dictionary was refused", got)
	}
}
