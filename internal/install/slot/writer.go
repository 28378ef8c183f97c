package slot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// closeGrace is how long Close waits for a read or a write that hangs.
const closeGrace = 400 * time.Millisecond

var (
	// ErrMismatch means that the medium does not hold what was written.
	ErrMismatch = errors.New("read back differs from what was written")

	errClosed = fmt.Errorf("the slot is not open for writing any more: %w", fs.ErrClosed)
)

// Stats says what a [Writer] did, in bytes but for Flushes. Written, Skipped and
// Zeroed add up to the image.
type Stats struct {
	Written  int64 // sent to the medium
	Skipped  int64 // was right already, so was left alone
	Zeroed   int64 // made zero by the medium itself, by command
	Compared int64 // of it, what was held against what the medium had
	ReadBack int64 // read by Verify
	Flushes  int64 // of the medium's cache
}

// counters are what becomes Stats. The stages count, each its own.
type counters struct{ written, skipped, zeroed, compared, readBack, flushes atomic.Int64 }

// Writer writes an image from the beginning of a partition on, in a pipeline of
// two stages: one finds out which bytes have to change, one changes them. Its
// memory is that of the ring, whatever the image.
//
// The image comes by [Writer.Write], or into buffers of the Writer's own by
// [Writer.Next] and [Writer.Commit]; one Writer takes one way or the other. Then
// comes [Writer.Sync], and then, if wanted, [Writer.Verify]. [Writer.Close] ends
// it at any time. But for Next beside Commit, methods must not be called at the
// same time.
//
// Nothing that is on the medium counts before Sync has returned. A power cut
// before that leaves any mix of old and new cells; the partition is one that
// nothing boots, and the next installation of the same image finds by comparing
// what is right already.
type Writer struct {
	part     Partition
	m        medium
	ring     *ring
	lent     chan *block   // in the order of the image
	input    chan *block   // to be compared
	output   chan *block   // to be written
	written  chan struct{} // closed when all of output has been
	off      int64         // bytes committed
	short    bool          // the last block has been committed
	ended    bool          // input is closed
	verified bool          // Verify was called
	cur      *block        // partly filled by Write

	comparer comparer
	readBack ReadBack
	zeroes   atomic.Bool
	rate     rate
	pending  run64 // zeros that are not commanded yet
	done     counters

	failed chan struct{} // closed when err is set
	once   sync.Once
	err    error
	work   sync.WaitGroup
}

// run64 is a range of the partition.
type run64 struct{ off, n int64 }

// OpenWriter opens the partition for writing an image of size bytes. A block
// device is opened exclusively: the kernel refuses one that is mounted or in use
// by another driver. A UBI volume is refused later, by the first write. Nothing
// is written yet. what is what Verify will read.
//
// What is said of power cuts above is true of UBI volumes in another way: there
// are no old bytes and no new ones until the last is written, see volume.
func OpenWriter(p Partition, size int64, what ReadBack) (*Writer, error) {
	m, err := open(p, size)
	if err != nil {
		return nil, fmt.Errorf("open slot %s: %w", p.Path, cause(err))
	}
	w, err := newWriter(p, m, size, what, promisesZeroes(sysfs, p.ID), time.Now)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open slot %s: %w", p.Path, err), m.Close())
	}
	return w, nil
}

func open(p Partition, size int64) (medium, error) {
	if p.ID.UBI {
		return openVolume(p, size)
	}
	return openFile(p)
}

// newWriter starts the pipeline. zeroes says that the medium makes zeros by
// command.
func newWriter(p Partition, m medium, size int64, what ReadBack, zeroes bool, now func() time.Time) (*Writer, error) {
	r, err := newRing()
	if err != nil {
		return nil, err
	}
	w := &Writer{
		part: p, m: m, ring: r, readBack: what,
		lent:    make(chan *block, ringBlocks),
		input:   make(chan *block, ringBlocks),
		output:  make(chan *block, ringBlocks),
		written: make(chan struct{}),
		failed:  make(chan struct{}),
	}
	w.zeroes.Store(zeroes)
	proves := what == ReadChanged && m.Uncached()
	w.comparer = comparer{
		m: m, now: now, zeroes: &w.zeroes, blank: p.ID.UBI, zero: r.zeros[:cellSize], held: window{buf: r.held},
		content: newBalance(contentShare, proves), zeros: newBalance(zeroShare, proves), rate: &w.rate, done: &w.done,
	}
	if what == ReadChanged {
		w.comparer.expected = newExpected(size, !proves)
	}
	w.work.Go(func() {
		defer close(w.output)
		defer w.rescue()
		for b := range w.input {
			if !w.stopped() {
				w.comparer.plan(b)
			}
			w.output <- b // there is room for each block
		}
	})
	w.work.Go(func() {
		defer close(w.written)
		defer w.rescue()
		for b := range w.output {
			if !w.stopped() {
				w.apply(b)
			}
			w.ring.free <- b // there is room for each block
		}
	})
	return w, nil
}

// fail keeps the first error and ends all stages.
func (w *Writer) fail(err error) {
	w.once.Do(func() {
		w.err = err
		close(w.failed)
	})
}

func (w *Writer) stopped() bool {
	select {
	case <-w.failed:
		return true
	default:
		return false
	}
}

// rescue turns a panic of a stage into the error of the Writer: the exit status
// of a panic means something else to those who run the program.
func (w *Writer) rescue() {
	if r := recover(); r != nil {
		w.fail(fmt.Errorf("write slot %s: internal error: %v", w.part.Path, r))
	}
}

// Next returns memory for the next bytes of the image, to be filled from its
// beginning. It waits for a free block, and returns an error when ctx ends or
// the writing has failed.
func (w *Writer) Next(ctx context.Context) ([]byte, error) {
	b, err := w.next(ctx)
	if err != nil {
		return nil, err
	}
	w.lent <- b // there is room for each block
	return b.buf, nil
}

func (w *Writer) next(ctx context.Context) (*block, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.stopped() {
		return nil, w.err
	}
	select {
	case b := <-w.ring.free:
		return b, nil
	case <-w.failed:
		return nil, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Commit takes the first n bytes of the oldest buffer that Next has lent as the
// next bytes of the image. All of it must be filled, unless it is the last. When
// they do not fit into the partition, the error wraps ENOSPC, and none of them
// is written.
func (w *Writer) Commit(n int) error {
	return w.commit(<-w.lent, n)
}

func (w *Writer) commit(b *block, n int) error {
	switch {
	case w.stopped():
		return w.err
	case w.ended || w.short:
		return fmt.Errorf("write slot %s offset %d: %w", w.part.Path, w.off, errClosed)
	case w.off+int64(n) > w.part.Size:
		err := fmt.Errorf("write slot %s: image is larger than its %d bytes: %w", w.part.Path, w.part.Size, unix.ENOSPC)
		w.fail(err)
		return err
	}
	b.n, b.off = n, w.off
	w.off += int64(n)
	w.short = n < blockSize
	w.input <- b // there is room for each block
	return nil
}

// Write takes the next bytes of the image. It returns an error that wraps
// ENOSPC when they do not fit.
func (w *Writer) Write(p []byte) (int, error) {
	taken := 0
	for len(p) > 0 {
		if w.cur == nil {
			b, err := w.next(context.Background())
			if err != nil {
				return taken, err
			}
			w.cur, b.n = b, 0
		}
		n := copy(w.cur.buf[w.cur.n:], p)
		w.cur.n += n
		p, taken = p[n:], taken+n
		if w.cur.n == blockSize {
			if err := w.commitCurrent(); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}

func (w *Writer) commitCurrent() error {
	if w.cur == nil {
		return nil
	}
	b := w.cur
	w.cur = nil
	return w.commit(b, b.n)
}

// Sync waits until everything is written, and until the medium has it all. It
// flushes the medium's cache once, whatever the image. When ctx ends it returns at
// once, and nothing more is begun.
func (w *Writer) Sync(ctx context.Context) error {
	if w.ended {
		return fmt.Errorf("sync slot %s: %w", w.part.Path, errClosed)
	}
	if err := w.commitCurrent(); err != nil {
		return err
	}
	w.end()
	flushed := make(chan struct{})
	w.work.Go(func() {
		defer close(flushed)
		defer w.rescue()
		<-w.written
		w.flush()
	})
	select {
	case <-flushed:
	case <-ctx.Done():
		w.fail(fmt.Errorf("sync slot %s: %w", w.part.Path, context.Cause(ctx)))
	}
	if w.stopped() {
		return w.err
	}
	return nil
}

// flush is what follows the last write.
func (w *Writer) flush() {
	if !w.stopped() {
		w.command()
	}
	if w.stopped() {
		return
	}
	w.done.flushes.Add(1)
	if err := w.m.Flush(); err != nil {
		w.fail(fmt.Errorf("sync slot %s: %w", w.part.Path, cause(err)))
	}
}

// end lets the stages finish.
func (w *Writer) end() {
	if !w.ended {
		w.ended = true
		close(w.input)
	}
}

// Stats returns what was done so far. It is complete after [Writer.Sync].
func (w *Writer) Stats() Stats {
	return Stats{
		Written: w.done.written.Load(), Skipped: w.done.skipped.Load(), Zeroed: w.done.zeroed.Load(),
		Compared: w.done.compared.Load(), ReadBack: w.done.readBack.Load(), Flushes: w.done.flushes.Load(),
	}
}

// Close ends the writing. What was not synced may be lost.
//
// A medium that does not answer is left behind after a moment, with an error:
// what was asked of it may still happen. It then stays claimed, so that no other
// Writer can open it, until it answers or the program ends.
func (w *Writer) Close() error {
	w.fail(errClosed)
	w.end()
	idle := make(chan struct{})
	go func() {
		w.work.Wait()
		close(idle)
	}()
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	var err error
	select {
	case <-idle:
		err = w.ring.release()
	case <-timer.C: // its memory is still being read or written
		err = errors.New("the medium does not answer")
	}
	if err = errors.Join(err, cause(w.m.Close())); err != nil {
		return fmt.Errorf("close slot %s: %w", w.part.Path, err)
	}
	return nil
}
