package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestImages checks that images are the same each time and what the tables say
// they are: like a root file system, and its release before.
func TestImages(t *testing.T) {
	const size = 128 * mib
	var image, prev, again bytes.Buffer
	if err := writeImages(&image, &prev, size); err != nil {
		t.Fatal(err)
	}
	if err := writeImages(&again, &bytes.Buffer{}, size); err != nil {
		t.Fatal(err)
	}
	if image.Len() != size || prev.Len() != size || !bytes.Equal(image.Bytes(), again.Bytes()) {
		t.Fatalf("images of %d and %d bytes, the same again: %v; want %d, true", image.Len(), prev.Len(), bytes.Equal(image.Bytes(), again.Bytes()), size)
	}
	dir := t.TempDir()
	a, b := filepath.Join(dir, "image"), filepath.Join(dir, "prev")
	if err := os.WriteFile(a, image.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b, prev.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := compareImages(a, b)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	z.Write(image.Bytes()[:16*mib])
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what      string
		got       float64
		low, high float64
	}{
		{"zero blocks %", 100 * float64(s.zero) / float64(s.all), 36, 48},
		{"changed blocks %", 100 * float64(s.differ) / float64(s.all), 6, 12},
		{"gzip of it %", 100 * float64(packed.Len()) / (16 * mib), 12, 32},
	} {
		if tt.got < tt.low || tt.got > tt.high {
			t.Errorf("%s = %.1f, want %.0f to %.0f", tt.what, tt.got, tt.low, tt.high)
		}
		t.Logf("%s: %.1f", tt.what, tt.got)
	}
}

// request makes a request of FUSE.
func request(op uint32, body []byte, data []byte) []byte {
	b := make([]byte, fuseInHeader, fuseInHeader+len(body)+len(data))
	binary.LittleEndian.PutUint32(b[4:], op)
	binary.LittleEndian.PutUint64(b[8:], 99)
	return append(append(b, body...), data...)
}

// at is the start of the body of a read, a write or a fallocate.
func at(offset, n uint64, size int) []byte {
	b := make([]byte, size)
	binary.LittleEndian.PutUint64(b[8:], offset)
	binary.LittleEndian.PutUint64(b[16:], n)
	return b
}

// TestSlowFile asks the medium as the kernel does: each request has its answer,
// its effect on the file and its price.
func TestSlowFile(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := bytes.Repeat([]byte{1}, 8192)
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	r := rates{read: 4096e3, write: 1024e3, request: 100 * time.Microsecond, flush: 5 * time.Millisecond}
	mixed := append(bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)...)
	tests := []struct {
		name   string
		zeroes bool
		in     []byte
		errno  unix.Errno
		answer []byte // after the header; nil: do not compare
		file   []byte
		took   time.Duration
	}{
		{"read", false, request(fuseRead, at(4096, 4096, 40), nil), 0, data[:4096], data, 1100 * time.Microsecond},
		{"write", false, request(fuseWrite, at(4096, 4096, 40), mixed[4096:]), 0, binary.LittleEndian.AppendUint64(nil, 4096), mixed, 4100 * time.Microsecond},
		{"flush", false, request(fuseFsync, make([]byte, 16), nil), 0, []byte{}, mixed, 5 * time.Millisecond},
		{"zeros, not offered", false, request(fuseFallocate, at(0, 4096, 32), nil), unix.EOPNOTSUPP, []byte{}, mixed, 0},
		{"zeros", true, request(fuseFallocate, at(0, 4096, 32), nil), 0, []byte{}, append(make([]byte, 4096), mixed[4096:]...), 100 * time.Microsecond},
		{"unknown", false, request(4711, nil, nil), unix.ENOSYS, []byte{}, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var took time.Duration
			now := time.Unix(1000, 0)
			s := &slowFile{rates: r, f: f, now: func() time.Time { return now }, wait: func(d time.Duration) { took += d }}
			s.zeroes = tt.zeroes
			out := s.handle(tt.in, make([]byte, fuseMaxRequest+fuseSlack))
			if got := unix.Errno(-int32(binary.LittleEndian.Uint32(out[4:]))); got != tt.errno {
				t.Errorf("error = %v, want %v", got, tt.errno)
			}
			if unique := binary.LittleEndian.Uint64(out[8:]); unique != 99 {
				t.Errorf("answer to %d, want 99", unique)
			}
			if !bytes.Equal(out[fuseOutHeader:], tt.answer) {
				t.Errorf("answer = %d bytes %.40x, want %d bytes %.40x", len(out)-fuseOutHeader, out[fuseOutHeader:], len(tt.answer), tt.answer)
			}
			if took != tt.took {
				t.Errorf("took %v, want %v", took, tt.took)
			}
			if got, err := os.ReadFile(f.Name()); err != nil || tt.file != nil && !bytes.Equal(got, tt.file) {
				t.Errorf("the file is not what it should be (%v)", err)
			}
		})
	}
}

// TestSlowFileKeepsRate checks that a late answer does not add up: the medium
// was at work meanwhile. An idle medium earns nothing.
func TestSlowFileKeepsRate(t *testing.T) {
	now := time.Unix(1000, 0)
	s := &slowFile{now: func() time.Time { return now }}
	var waited []time.Duration
	s.wait = func(d time.Duration) { waited = append(waited, d); now = now.Add(d) }
	s.take(time.Millisecond, 0, 0)
	now = now.Add(200 * time.Microsecond) // the way through the kernel
	s.take(time.Millisecond, 0, 0)
	now = now.Add(time.Second) // idle
	s.take(time.Millisecond, 0, 0)
	want := []time.Duration{time.Millisecond, 800 * time.Microsecond, time.Millisecond}
	if diff := cmp.Diff(want, waited); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

func TestMedians(t *testing.T) {
	got := medians([]result{{wall: 3, cpu: 1}, {wall: 1, cpu: 9}, {wall: 2, cpu: 5}, {wall: 100, cpu: 2}})
	if got.wall != 2.5 || got.cpu != 3.5 {
		t.Errorf("medians = wall %v, CPU %v, want 2.5, 3.5", got.wall, got.cpu)
	}
}

func TestSwitched(t *testing.T) {
	want := map[string]string{"mender_boot_part": "3", "upgrade_available": "1"}
	if err := switched(map[string]string{"mender_boot_part": "3", "upgrade_available": "1", "x": "y"}, want); err != nil {
		t.Errorf("switched = %v, want nil", err)
	}
	if err := switched(map[string]string{"mender_boot_part": "3", "upgrade_available": "0"}, want); err == nil {
		t.Error("switched of an environment without a trial = nil, want an error")
	}
}
