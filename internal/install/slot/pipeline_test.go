package slot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// TestContent: whatever was there, whatever the medium can do, it holds the
// image afterwards, and nothing behind it has changed.
func TestContent(t *testing.T) {
	const size = 6 * blockSize
	for _, n := range []int{1, cellSize - 1, cellSize, cellSize + 513, blockSize, blockSize + zeroRun, 2*blockSize + 17, 5*blockSize + 3*cellSize + 1, size} {
		image := release(n, 1)
		for name, before := range map[string][]byte{
			"zeros": make([]byte, size), "noise": noise(size, 2), "same": append(slices.Clone(image), noise(size-n, 3)...),
		} {
			for _, promised := range []bool{false, true} {
				for _, way := range []struct {
					kept, sends bool
					what        ReadBack
				}{{false, false, ReadChanged}, {true, false, ReadChanged}, {true, true, ReadChanged}, {true, false, ReadAll}, {true, false, ReadNothing}} {
					m := newFakeMedium(t, before)
					m.zeroes, m.sends, m.readBack = way.kept, way.sends, way.what
					kept := way.kept && !way.sends
					stats, err := m.install(promised, image)
					what := fmt.Sprintf("%d bytes over %s, zeroing promised %v, possible and without sending %+v", n, name, promised, way)
					if err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					if !bytes.Equal(m.disk[:n], image) || !bytes.Equal(m.disk[n:], before[n:]) {
						t.Errorf("%s: the medium holds something else", what)
					}
					if stats.Written+stats.Skipped+stats.Zeroed != int64(n) || stats.Written != m.written {
						t.Errorf("%s: %+v does not add up; %d bytes were written", what, stats, m.written)
					}
					if !kept && m.zeroed > 1 {
						t.Errorf("%s: %d commands to zero, want one at most", what, m.zeroed)
					}
					if stats.Flushes != 1 || m.flushes != 1 {
						t.Errorf("%s: %d flushes, %d counted", what, m.flushes, stats.Flushes)
					}
					if name == "same" && stats.Written > 0 && (kept || !promised) {
						t.Errorf("%s: %d bytes are written for nothing", what, stats.Written)
					}
				}
			}
		}
	}
}

// TestWrittenIsBounded: joining runs must not cost the medium much.
func TestWrittenIsBounded(t *testing.T) {
	const n = 20 * blockSize
	rng := rand.New(rand.NewPCG(1, 2))
	for name, changed := range map[string]func(cell int) bool{
		"one in eleven": func(int) bool { return rng.IntN(11) == 0 },
		"every second":  func(c int) bool { return c%2 == 0 },
		"every fifth":   func(c int) bool { return c%5 == 0 },
		"long runs":     func(c int) bool { return c%100 < 30 },
		"a first part":  func(c int) bool { return c < 200 },
		"none":          func(int) bool { return false },
	} {
		before := noise(n, 1)
		image := slices.Clone(before)
		for c := range n / cellSize {
			if changed(c) {
				image[c*cellSize+rng.IntN(cellSize)] ^= 0x10
			}
		}
		m := newFakeMedium(t, before)
		stats, err := m.install(false, image)
		if err != nil || !bytes.Equal(m.disk, image) {
			t.Fatalf("%s: %v", name, err)
		}
		want := differing(before, image)
		if stats.Written < want || float64(stats.Written) > 1.15*float64(want) {
			t.Errorf("%s: %d bytes written, %d differ", name, stats.Written, want)
		}
	}
}

// TestZerosAreNotRead: where nothing is read back, a medium that makes zeros is
// not asked what it holds where they go, and is told of neighboring runs at once.
func TestZerosAreNotRead(t *testing.T) {
	image := noise(4*blockSize, 1)
	clear(image[blockSize/2 : 3*blockSize])
	m := newFakeMedium(t, noise(len(image), 2))
	m.zeroes, m.readBack = true, ReadNothing
	stats, err := m.install(true, image)
	if err != nil || !bytes.Equal(m.disk, image) {
		t.Fatal(err)
	}
	if want := int64(5 * blockSize / 2); stats.Zeroed != want {
		t.Errorf("%d bytes zeroed by command, want %d", stats.Zeroed, want)
	}
	for _, r := range m.reads {
		if r.off < 3*blockSize && r.off+r.n > blockSize/2 {
			t.Errorf("read of %d bytes at %d", r.n, r.off)
		}
	}
	if want := 2 + 2 + 1; m.ops > want { // two writes, a first command and another, one flush
		t.Errorf("%d operations, want at most %d", m.ops, want)
	}
}

// TestShortRunsOfZeros: a command costs more than they do.
func TestShortRunsOfZeros(t *testing.T) {
	image := noise(2*blockSize, 1)
	clear(image[cellSize:zeroRun]) // one cell less than a run
	m := newFakeMedium(t, noise(len(image), 2))
	m.zeroes = true
	stats, err := m.install(true, image)
	if err != nil || !bytes.Equal(m.disk, image) || stats.Zeroed != 0 || m.zeroed != 0 {
		t.Errorf("%+v, %d commands, %v, want none", stats, m.zeroed, err)
	}
}

// TestComparingGivesUp: where nothing is equal, little is read.
func TestComparingGivesUp(t *testing.T) {
	const n = firstWindow + retryAfter + retryWindow + 8<<20
	m := newFakeMedium(t, make([]byte, n))
	image := bytes.Repeat(noise(1<<20, 1), n>>20)
	stats, err := m.install(false, image)
	if err != nil || !bytes.Equal(m.disk, image) {
		t.Fatal(err)
	}
	limit := int64(firstWindow + (n/retryAfter+1)*retryWindow)
	if stats.Compared < firstWindow || stats.Compared > limit {
		t.Errorf("%d bytes compared, want at least %d and at most %d", stats.Compared, firstWindow, limit)
	}
}

// TestInterrupted: an installation that was cut is taken up again without
// writing what is right.
func TestInterrupted(t *testing.T) {
	const n = 24 << 20
	image := noise(n, 1)
	m := newFakeMedium(t, noise(n, 2))
	w := m.open(false)
	err := fill(t.Context(), w, image[:n/2]) // and the power goes
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	stats, err := m.install(false, image)
	if err != nil || !bytes.Equal(m.disk, image) {
		t.Fatal(err)
	}
	if const50 := int64(n / 2); stats.Written != const50 || stats.Skipped != const50 {
		t.Errorf("after a cut half way: %+v, want %d written", stats, const50)
	}
}

// TestPowerCutDuringWrite cuts at each operation. What is on the medium then
// is any mix, and Sync has not returned without an error; the next installation
// makes it right.
func TestPowerCutDuringWrite(t *testing.T) {
	image := release(3*blockSize+100, 1)
	before := append(release(3*blockSize, 2), noise(blockSize, 3)...)
	for cut := 0; ; cut++ {
		m := newFakeMedium(t, before)
		m.zeroes, m.cutAfter = true, cut
		_, err := m.install(true, image)
		m.powerOn()
		if err == nil {
			if cut < 5 {
				t.Errorf("done after %d operations", cut)
			}
			if !bytes.Equal(m.disk[:len(image)], image) {
				t.Error("Sync returned, and the image is not on the medium")
			}
			return
		}
		if !errors.Is(err, errPowerCut) {
			t.Fatalf("cut after %d operations: %v", cut, err)
		}
		if !bytes.Equal(m.disk, before) {
			t.Errorf("cut after %d operations: something is there without a flush", cut)
		}
		if _, err := m.install(true, image); err != nil || !bytes.Equal(m.disk[:len(image)], image) || !bytes.Equal(m.disk[len(image):], before[len(image):]) {
			t.Fatalf("installed again after a cut after %d operations: %v", cut, err)
		}
	}
}

func TestFailingMedium(t *testing.T) {
	image := noise(4*blockSize, 1)
	for _, tt := range []struct {
		name   string
		medium func(*fakeMedium)
		err    error
		text   string
	}{
		{"write", func(m *fakeMedium) { m.failErr, m.failAt = unix.EIO, 2*blockSize+5*cellSize }, unix.EIO, fmt.Sprintf("write slot /dev/fake3 offset %d: ", 2*blockSize+5*cellSize)},
		{"ends early", func(m *fakeMedium) { m.cache = m.cache[:3*blockSize] }, unix.ENOSPC, fmt.Sprintf("offset %d: ", 3*blockSize)},
		{"read", func(m *fakeMedium) { m.badRead = blockSize + 3*cellSize }, nil, ""},
		{"flush", func(m *fakeMedium) { m.cutAfter = 4 }, errPowerCut, "sync slot /dev/fake3: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newFakeMedium(t, noise(4*blockSize, 2))
			w := m.open(false)
			tt.medium(m)
			err := fill(t.Context(), w, image)
			if !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("fill: %v, want %v with %q", err, tt.err, tt.text)
			}
			if err == nil && !bytes.Equal(m.disk, image) {
				t.Error("no error, and the medium holds something else")
			}
			if err := w.Verify(t.Context(), sha256.Sum256(image)); err == nil && tt.err != nil {
				t.Error("verified")
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUnreadableDiffers: what a read has left in memory from the one before
// must not pass for what the medium holds.
func TestUnreadableDiffers(t *testing.T) {
	half := noise(heldSize, 1)
	image := append(slices.Clone(half), half...)
	m := newFakeMedium(t, append(slices.Clone(half), noise(heldSize, 2)...))
	m.badRead, m.readBack = heldSize, ReadNothing
	if _, err := m.install(false, image); err != nil || !bytes.Equal(m.disk, image) {
		t.Errorf("the medium holds something else, error %v", err)
	}
}

// TestVerifyOnFailingMedium: the read back names the place.
func TestVerifyOnFailingMedium(t *testing.T) {
	image := noise(3*blockSize+5, 1)
	m := newFakeMedium(t, make([]byte, 4*blockSize))
	w := m.open(false)
	defer w.Close()
	if err := fill(t.Context(), w, image); err != nil {
		t.Fatal(err)
	}
	m.badRead = 2*blockSize + cellSize
	err := w.Verify(t.Context(), sha256.Sum256(image))
	if want := fmt.Sprintf("verify slot /dev/fake3 offset %d: ", m.badRead); !errors.Is(err, unix.EIO) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Verify: %v, want %q and EIO", err, want)
	}
}

// TestHangingMedium: a write that does not return holds nobody for longer than
// a moment. The bubble of synctest finds goroutines that are left behind.
func TestHangingMedium(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMedium(t, noise(ringBlocks*2*blockSize, 2))
		m.hang = make(chan struct{})
		w := m.open(false)
		ctx, cancel := context.WithTimeout(t.Context(), closeGrace)
		defer cancel()
		var err error
		for err == nil {
			var buf []byte
			if buf, err = w.Next(ctx); err == nil {
				buf[0]++
				err = w.Commit(len(buf))
			}
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next: %v, want the context's error", err)
		}
		if err := w.Close(); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("Close: %v", err)
		}
		close(m.hang) // the write returns after all, into memory that is still there
	})
}

// TestHangingSync: so is a write that Sync waits for, and the flush.
func TestHangingSync(t *testing.T) {
	image := noise(3*blockSize, 1)
	for _, hang := range []string{"write", "flush"} {
		t.Run(hang, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newFakeMedium(t, make([]byte, len(image)))
				hung := make(chan struct{})
				if hang == "flush" {
					m.hangFlush = hung
				} else {
					m.hang = hung
				}
				w := m.open(false)
				ctx, cancel := context.WithTimeout(t.Context(), closeGrace)
				defer cancel()
				if err := fill(ctx, w, image); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Sync: %v, want the context's error", err)
				}
				if err := w.Close(); err == nil || !strings.Contains(err.Error(), "does not answer") {
					t.Errorf("Close: %v", err)
				}
				close(hung)
			})
		})
	}
}

// TestHangingReadBack: so is a read of Verify.
func TestHangingReadBack(t *testing.T) {
	image := noise(3*blockSize, 1)
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMedium(t, make([]byte, len(image)))
		w := m.open(false)
		if err := fill(t.Context(), w, image); err != nil {
			t.Fatal(err)
		}
		m.hangRead = make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), closeGrace)
		defer cancel()
		if err := w.Verify(ctx, sha256.Sum256(image)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Verify: %v, want the context's error", err)
		}
		if err := w.Close(); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("Close: %v", err)
		}
		close(m.hangRead)
	})
}

// TestNothingIsLeftBehind: in a bubble, each way to end a Writer.
func TestNothingIsLeftBehind(t *testing.T) {
	image := noise(7*blockSize, 1)
	for name, use := range map[string]func(context.Context, *Writer) error{
		"unused": func(context.Context, *Writer) error { return nil },
		"lent":   func(ctx context.Context, w *Writer) error { _, err := w.Next(ctx); return err },
		"half":   func(_ context.Context, w *Writer) error { _, err := w.Write(image[:3*blockSize+7]); return err },
		"synced": func(ctx context.Context, w *Writer) error { return fill(ctx, w, image) },
		"verify canceled": func(ctx context.Context, w *Writer) error {
			if err := fill(ctx, w, image); err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			if err := w.Verify(ctx, [32]byte{}); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("verify: %w", err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeMedium(t, make([]byte, len(image))).open(false)
				if err := use(t.Context(), w); err != nil {
					t.Error(err)
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestAfterTheEnd: only the last block may be short, and nothing goes in behind
// the end.
func TestAfterTheEnd(t *testing.T) {
	w := newFakeMedium(t, make([]byte, 2*blockSize)).open(false)
	defer w.Close()
	for i, want := range []error{nil, fs.ErrClosed} {
		if _, err := w.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(10); !errors.Is(err, want) {
			t.Errorf("Commit %d: %v, want %v", i, err, want)
		}
	}
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("second Sync: %v, want fs.ErrClosed", err)
	}
	if _, err := w.Write(make([]byte, blockSize)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Write after Sync: %v, want fs.ErrClosed", err)
	}
}
