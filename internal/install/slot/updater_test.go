package slot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeVolume is a UBI volume as the kernel keeps it: it is erased when an update
// starts, takes bytes only during one, and cannot be read until the last came.
type fakeVolume struct {
	mu      sync.Mutex
	data    []byte // what can be read
	size    int64  // of the volume
	marker  bool   // on the flash
	updates int64  // bytes that are still to come
	started []int64

	busy      bool  // mounted
	failAt    int64 // the write of this byte fails; -1: none
	readFails int64 // the read of it; -1: none
	sync      error
	corrupt   bool // a static volume whose checksum does not match
	flip      int64
	attr      error // of reading sysfs
	keeps     bool  // the marker, although all was written
	hang      chan struct{}
}

func newFakeVolume(content []byte) *fakeVolume {
	return &fakeVolume{data: slices.Clone(content), size: 8 * blockSize, failAt: -1, readFails: -1, flip: -1}
}

func (v *fakeVolume) Start(size int64) error {
	if v.hang != nil {
		<-v.hang
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.busy:
		return unix.EBUSY
	case size > v.size:
		return unix.EINVAL
	}
	v.started = append(v.started, size)
	v.data, v.marker, v.updates = nil, true, size
	return nil
}

func (v *fakeVolume) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := int64(len(v.data))
	switch {
	case v.updates < int64(len(p)):
		return 0, unix.EPERM // no update goes on: the kernel takes no direct write
	case v.failAt >= at && v.failAt < at+int64(len(p)):
		return 0, unix.EIO // the kernel does not tell how far it came
	}
	v.data = append(v.data, p...)
	if v.flip >= at && v.flip < at+int64(len(p)) {
		v.data[v.flip] ^= 1
	}
	v.updates -= int64(len(p))
	v.marker = v.updates > 0 || v.keeps
	return len(p), nil
}

func (v *fakeVolume) ReadAt(p []byte, off int64) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.marker:
		return 0, unix.EBADF
	case v.readFails >= off && v.readFails < off+int64(len(p)):
		return int(v.readFails - off), unix.EIO
	case off >= int64(len(v.data)):
		return 0, io.EOF
	}
	n := copy(p, v.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (v *fakeVolume) Sync() error               { return v.sync }
func (v *fakeVolume) Unfinished() (bool, error) { return v.marker, v.attr }
func (v *fakeVolume) Corrupted() (bool, error)  { return v.corrupt, v.attr }
func (v *fakeVolume) Close() error              { return nil }

// open returns a Writer to the volume for an image of size bytes.
func (v *fakeVolume) open(t *testing.T, size int64) *Writer {
	t.Helper()
	p := Partition{Path: "/dev/ubi0_1", ID: ubiID(5), Number: 1, Size: v.size}
	w, err := newWriter(p, &volume{dev: v, size: size}, size, ReadChanged, false, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// install writes the image and reads it back.
func (v *fakeVolume) install(t *testing.T, image []byte) (Stats, error) {
	t.Helper()
	w := v.open(t, int64(len(image)))
	err := fill(t.Context(), w, image)
	if err == nil {
		err = w.Verify(t.Context(), sha256.Sum256(image))
	}
	return w.Stats(), errors.Join(err, w.Close())
}

// TestVolumeContent: the volume holds the image and nothing else, in one
// update, whatever it held before: also the same image.
func TestVolumeContent(t *testing.T) {
	for _, n := range []int{1, cellSize + 513, blockSize, 2*blockSize + 17, 8 * blockSize} {
		image := release(n, 1)
		for name, before := range map[string][]byte{"nothing": nil, "noise": noise(8*blockSize, 2), "the image": image} {
			v := newFakeVolume(before)
			stats, err := v.install(t, image)
			if err != nil {
				t.Fatalf("%d bytes over %s: %v", n, name, err)
			}
			if !bytes.Equal(v.data, image) || v.marker {
				t.Errorf("%d bytes over %s: the volume holds something else; unfinished %v", n, name, v.marker)
			}
			if !slices.Equal(v.started, []int64{int64(n)}) {
				t.Errorf("%d bytes over %s: updates of %v bytes", n, name, v.started)
			}
			if stats.Written != int64(n) || stats.Skipped+stats.Zeroed+stats.Compared != 0 {
				t.Errorf("%d bytes over %s: %+v", n, name, stats)
			}
		}
	}
}

// TestVolumeFails at each step. A volume whose update was begun must not be
// taken for whole, and the next update repairs it.
func TestVolumeFails(t *testing.T) {
	image := release(3*blockSize+5, 1)
	before := noise(len(image), 9)
	for _, tt := range []struct {
		name  string
		spoil func(*fakeVolume)
		is    error
		text  string
		kept  bool // what was on the volume before
		whole bool // the kernel takes the volume for whole
	}{
		{"in use", func(v *fakeVolume) { v.busy = true }, unix.EBUSY, "write slot /dev/ubi0_1 offset 0: start the update of the volume: ", true, true},
		{"bad at once", func(v *fakeVolume) { v.failAt = 0 }, unix.EIO, "write slot /dev/ubi0_1 offset 0: ", false, false},
		{"bad later", func(v *fakeVolume) { v.failAt = 2*blockSize + 9 }, unix.EIO, "write slot /dev/ubi0_1 offset 524288: ", false, false},
		{"bad at the end", func(v *fakeVolume) { v.failAt = 3*blockSize + 4 }, unix.EIO, "write slot /dev/ubi0_1 offset 786432: ", false, false},
		{"sync", func(v *fakeVolume) { v.sync = unix.EIO }, unix.EIO, "sync slot /dev/ubi0_1: ", false, true},
		{"marker stays", func(v *fakeVolume) { v.keeps = true }, ErrIncomplete, "sync slot /dev/ubi0_1: ", false, false},
		{"corrupted", func(v *fakeVolume) { v.corrupt = true }, ErrCorrupted, "sync slot /dev/ubi0_1: ", false, true},
		{"no attributes", func(v *fakeVolume) { v.attr = unix.ENOENT }, unix.ENOENT, "sync slot /dev/ubi0_1: ", false, true},
		{"unreadable", func(v *fakeVolume) { v.readFails = blockSize + 77 }, unix.EIO, "verify slot /dev/ubi0_1 offset 262221: ", false, true},
		{"lies", func(v *fakeVolume) { v.flip = 2 * blockSize }, ErrMismatch, "verify slot /dev/ubi0_1: ", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newFakeVolume(before)
			tt.spoil(v)
			_, err := v.install(t, image)
			if !errors.Is(err, tt.is) || !strings.HasPrefix(err.Error(), tt.text) {
				t.Errorf("%v, want %q and %v", err, tt.text, tt.is)
			}
			if bytes.Equal(v.data, before) != tt.kept || v.marker == tt.whole {
				t.Errorf("kept %v, unfinished %v", bytes.Equal(v.data, before), v.marker)
			}
			again := newFakeVolume(nil)
			again.data, again.marker = v.data, v.marker
			if _, err := again.install(t, image); err != nil || !bytes.Equal(again.data, image) {
				t.Errorf("the next update: %v", err)
			}
		})
	}
}

// TestVolumeInterrupted: what was begun and not finished stays marked.
func TestVolumeInterrupted(t *testing.T) {
	image := release(3*blockSize, 1)
	v := newFakeVolume(image)
	w := v.open(t, int64(len(image)))
	if err := fill(t.Context(), w, image[:2*blockSize]); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Sync too early: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if !v.marker {
		t.Error("the volume is taken for whole")
	}
	if _, err := v.install(t, image); err != nil || v.marker {
		t.Errorf("the next update: %v, unfinished %v", err, v.marker)
	}
}

// TestVolumeUntouched: without a byte there is no update, and the volume is not
// taken for the image.
func TestVolumeUntouched(t *testing.T) {
	v := newFakeVolume(noise(blockSize, 1))
	w := v.open(t, blockSize)
	if err := w.Sync(t.Context()); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Sync: %v, want ErrIncomplete", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if len(v.started) > 0 || v.marker {
		t.Errorf("updates of %v bytes were started", v.started)
	}
}

// TestVolumeOrder: a gap would move all that follows.
func TestVolumeOrder(t *testing.T) {
	m := &volume{dev: newFakeVolume(nil), size: 2 * blockSize}
	for _, off := range []int64{blockSize, 0, 0} {
		n, err := m.WriteAt(make([]byte, cellSize), off)
		if want := off == m.sent-int64(n) && n > 0; want != (err == nil) {
			t.Errorf("write at %d: %d, %v", off, n, err)
		}
	}
	if m.sent != cellSize {
		t.Errorf("%d bytes were sent, want %d", m.sent, cellSize)
	}
}

// TestVolumeTakesNoMore than was announced, and nothing that does not fit.
func TestVolumeTakesNoMore(t *testing.T) {
	image := noise(2*blockSize, 1)
	v := newFakeVolume(nil)
	w := v.open(t, int64(len(image))-1)
	if err := fill(t.Context(), w, image); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("one byte too many: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if !v.marker {
		t.Error("the volume is taken for whole")
	}
	if _, err := newFakeVolume(nil).install(t, noise(8*blockSize+1, 1)); err == nil {
		t.Error("more than fits into the volume: no error")
	}
}

// TestVolumeCancel: erasing cannot be stopped, but nobody waits for it.
func TestVolumeCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newFakeVolume(nil)
		v.hang = make(chan struct{})
		w := v.open(t, 8*blockSize)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := fill(ctx, w, noise(8*blockSize, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want context.DeadlineExceeded", err)
		}
		began := time.Now()
		if err := w.Close(); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		close(v.hang)
		w.work.Wait()
	})
}
