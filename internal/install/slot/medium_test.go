package slot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var errPowerCut = errors.New("the power is off")

// fakeMedium is a block device of memory with a write cache. What was not
// flushed is lost when the power is cut.
type fakeMedium struct {
	t  *testing.T
	mu sync.Mutex

	disk  []byte // survives a power cut
	cache []byte // what reads return

	readBack   ReadBack
	remembered int  // blocks for which a Writer remembers what to read back; 0: all
	cached     bool // reads may come from a cache
	zeroes     bool // takes commands to zero
	sends      bool // and sends the zeros itself
	failAt     int64
	failErr    error         // of writes that touch failAt; nil: none
	badRead    int64         // reads that touch it fail; -1: none
	heal       bool          // until it is written
	cutAfter   int           // operations until the power is cut; -1: never
	hang       chan struct{} // of writes
	hangRead   chan struct{}
	hangFlush  chan struct{}
	fault      func(op, n int) fault // of the write or command of that number; nil: none

	ops     int
	zeroed  int // commands
	reads   []run64
	written int64
	flushes int
}

func newFakeMedium(t *testing.T, content []byte) *fakeMedium {
	t.Helper()
	return &fakeMedium{t: t, disk: slices.Clone(content), cache: slices.Clone(content), badRead: -1, cutAfter: -1}
}

// fault is what a medium that lies does to a write or a command to zero.
type fault struct {
	kind faultKind
	at   int // byte of the operation's range that it is about
}

type faultKind int

const (
	faultNone faultKind = iota
	faultDrop           // nothing happens
	faultFlip           // a bit is wrong afterwards
	faultCut            // what is behind a byte does not happen
	faultHit            // another cell is destroyed, too: that of the byte, counted from the start of the medium
)

// store does to the cache what an operation asks for, or what its fault makes
// of it. content is nil for zeros.
func (m *fakeMedium) store(content []byte, off int64, n int) {
	var f fault
	if m.fault != nil {
		f = m.fault(m.ops, n)
	}
	to := m.cache[off : off+int64(n)]
	end := n
	switch f.kind {
	case faultDrop:
		return
	case faultCut:
		end = f.at
	case faultNone, faultFlip: // below
	case faultHit:
		clear(m.cache[f.at&^(cellSize-1):][:cellSize])
	}
	if content == nil {
		clear(to[:end])
	} else {
		copy(to[:end], content)
	}
	if f.kind == faultFlip {
		to[f.at] ^= 0x20
	}
}

// change is one operation that changes something, if the power is on.
func (m *fakeMedium) change() error {
	if m.cutAfter >= 0 && m.ops >= m.cutAfter {
		return errPowerCut
	}
	m.ops++
	return nil
}

// powerOn ends a cut: the cache is lost.
func (m *fakeMedium) powerOn() {
	m.cache = slices.Clone(m.disk)
	m.cutAfter, m.ops, m.written, m.flushes, m.reads = -1, 0, 0, 0, nil
}

func (m *fakeMedium) ReadAt(p []byte, off int64) (int, error) {
	if m.hangRead != nil {
		<-m.hangRead
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if off%cellSize != 0 || len(p)%cellSize != 0 {
		m.t.Errorf("read of %d bytes at %d is not aligned", len(p), off)
	}
	m.reads = append(m.reads, run64{off, int64(len(p))})
	if m.badRead >= off && m.badRead < off+int64(len(p)) {
		return copy(p, m.cache[off:m.badRead]), unix.EIO
	}
	if off >= int64(len(m.cache)) {
		return 0, io.EOF
	}
	n := copy(p, m.cache[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *fakeMedium) Uncached() bool { return !m.cached }

func (m *fakeMedium) WriteAt(p []byte, off int64) (int, error) {
	if m.hang != nil {
		<-m.hang
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if off%cellSize != 0 {
		m.t.Errorf("write at %d is not aligned", off)
	}
	if err := m.change(); err != nil {
		return 0, err
	}
	if m.failErr != nil && m.failAt >= off && m.failAt < off+int64(len(p)) {
		n := copy(m.cache[off:m.failAt], p)
		return n, m.failErr
	}
	if off+int64(len(p)) > int64(len(m.cache)) {
		return 0, unix.ENOSPC
	}
	if m.heal && m.badRead >= off && m.badRead < off+int64(len(p)) {
		m.badRead = -1
	}
	m.written += int64(len(p))
	m.store(p, off, len(p))
	return len(p), nil
}

func (m *fakeMedium) Zero(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.change(); err != nil {
		return err
	}
	m.zeroed++
	if !m.zeroes {
		return errors.ErrUnsupported
	}
	m.store(nil, off, int(n))
	if m.sends {
		m.written += n
		return errSent
	}
	return nil
}

func (m *fakeMedium) Flush() error {
	if m.hangFlush != nil {
		<-m.hangFlush
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.change(); err != nil {
		return err
	}
	m.flushes++
	copy(m.disk, m.cache)
	return nil
}

func (m *fakeMedium) Close() error { return nil }

// open returns a Writer to the medium, which claims to zero by command.
func (m *fakeMedium) open(zeroes bool) *Writer {
	m.t.Helper()
	still := func() time.Time { return time.Time{} } // nothing takes time: what was found equal decides alone
	w, err := newWriter(Partition{Path: "/dev/fake3", Size: int64(len(m.cache))}, m, int64(len(m.cache)), m.readBack, zeroes, still)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.remembered > 0 {
		w.comparer.expected.blocks = w.comparer.expected.blocks[:m.remembered]
	}
	return w
}

// fill puts the image into the Writer's own buffers, as a decoder does.
func fill(ctx context.Context, w *Writer, image []byte) error {
	for rest := image; len(rest) > 0; {
		buf, err := w.Next(ctx)
		if err != nil {
			return err
		}
		n := copy(buf, rest)
		rest = rest[n:]
		if err := w.Commit(n); err != nil {
			return err
		}
	}
	return w.Sync(ctx)
}

// install writes the image, syncs, verifies and closes.
func (m *fakeMedium) install(zeroes bool, image []byte) (Stats, error) {
	m.t.Helper()
	w := m.open(zeroes)
	err := fill(m.t.Context(), w, image)
	if err == nil && m.readBack != ReadNothing {
		err = w.Verify(m.t.Context(), sha256.Sum256(image))
	}
	return w.Stats(), errors.Join(err, w.Close())
}

// release is an image like that of a root file system: runs of zeros of all
// lengths between content.
func release(n int, seed byte) []byte {
	image := noise(n, seed)
	for at, i := 0, 1; at < n; i++ {
		run := min(n-at, (i*i%37+1)*cellSize)
		if i%2 == 0 {
			clear(image[at : at+run])
		}
		at += run
	}
	return image
}

// differing counts the bytes of cells that differ and are not zero in image.
func differing(before, image []byte) int64 {
	sum := int64(0)
	for at := 0; at < len(image); at += cellSize {
		cell := image[at:min(at+cellSize, len(image))]
		if !bytes.Equal(cell, before[at:at+len(cell)]) && len(bytes.Trim(cell, "\x00")) > 0 {
			sum += int64(len(cell))
		}
	}
	return sum
}
