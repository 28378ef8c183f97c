package slot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// ReadBack is what [Writer.Verify] reads.
type ReadBack int

const (
	// ReadChanged is everything that this Writer has not seen to be right on
	// the medium: what it has written, what it has left to the medium to zero,
	// and what it did not compare, or not past the page cache.
	ReadChanged ReadBack = iota
	// ReadAll is all of the image.
	ReadAll
	// ReadNothing means that Verify is not called.
	ReadNothing
)

// Verify reads back from the medium. It is called after [Writer.Sync], so that
// the medium cannot answer from what it has not stored yet. A difference is
// [ErrMismatch]. Verify ends with ctx. It may be called once.
//
// With [ReadAll] it compares the SHA-256 of what it reads with want. With
// [ReadChanged] it compares with what was given to the Writer: that this is the
// image of want is for the caller to make sure of: he has hashed the stream.
// Both say that the medium holds the image. ReadChanged cannot see a
// medium that loses a cell after it was compared, because a write to another
// one has hit it.
//
// Reading and checking go on at the same time, in the memory of the Writer.
func (w *Writer) Verify(ctx context.Context, want [sha256.Size]byte) error {
	if !w.ended || w.stopped() || w.verified || w.readBack == ReadNothing {
		return fmt.Errorf("verify slot %s: %w", w.part.Path, errClosed)
	}
	w.verified = true
	if w.readBack == ReadChanged {
		return w.verifyChanged(ctx)
	}
	h := sha256.New()
	everything := func(off, size int64, limit int) (int64, int) { return off, int(min(size-off, int64(limit))) }
	err := w.eachPiece(ctx, everything, func(p piece) error {
		h.Write(p.buf[:p.n])
		return nil
	})
	if err != nil {
		return err
	}
	if got := [sha256.Size]byte(h.Sum(nil)); got != want {
		return fmt.Errorf("verify slot %s: %w: sha256 %x, want %x", w.part.Path, ErrMismatch, got, want)
	}
	return nil
}

func (w *Writer) verifyChanged(ctx context.Context) error {
	c := checker{expected: w.comparer.expected}
	mismatch := func(off int64) error {
		return fmt.Errorf("verify slot %s: %w in the %d bytes from offset %d on", w.part.Path, ErrMismatch, min(w.off-off, blockSize), off)
	}
	err := w.eachPiece(ctx, w.comparer.expected.next, func(p piece) error {
		if wrong, ok := c.add(p.buf[:p.n], p.off); !ok {
			return mismatch(wrong)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if wrong, ok := c.end(); !ok {
		return mismatch(wrong)
	}
	return nil
}

// piece is a range of the partition that was read back.
type piece struct {
	buf []byte
	off int64
	n   int
}

// eachPiece reads the ranges that next names, and calls check for each, in
// order; the next one is read meanwhile. next is like [expected.next].
func (w *Writer) eachPiece(ctx context.Context, next func(off, size int64, limit int) (int64, int), check func(piece) error) error {
	if len(w.ring.free) < ringBlocks {
		return fmt.Errorf("verify slot %s: a buffer is still lent", w.part.Path)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	free, full := make(chan []byte, verifyBuffers), make(chan piece, verifyBuffers)
	for i := range verifyBuffers {
		free <- w.ring.memory[i*verifySize:][:verifySize]
	}
	w.work.Go(func() {
		defer close(full)
		defer w.rescue()
		w.readPieces(ctx, next, free, full)
	})
	for {
		select {
		case p, more := <-full:
			if !more {
				return w.verifyError(ctx)
			}
			if err := check(p); err != nil {
				return err
			}
			free <- p.buf // there is room for each buffer
		case <-ctx.Done():
			return w.verifyError(ctx)
		}
	}
}

// verifyError is why no more pieces come, nil if all have come.
func (w *Writer) verifyError(ctx context.Context) error {
	switch {
	case w.stopped():
		return w.err
	case ctx.Err() != nil:
		return fmt.Errorf("verify slot %s: %w", w.part.Path, context.Cause(ctx))
	default:
		return nil
	}
}

// readPieces reads into free buffers until there is nothing more or ctx ends.
func (w *Writer) readPieces(ctx context.Context, next func(off, size int64, limit int) (int64, int), free <-chan []byte, full chan<- piece) {
	for off, n := next(0, w.off, verifySize); n > 0; off, n = next(off+int64(n), w.off, verifySize) {
		p := piece{off: off, n: n}
		select {
		case p.buf = <-free:
		case <-w.failed:
			return
		case <-ctx.Done():
			return
		}
		// Whole cells, as direct I/O needs it, also at the end of the image.
		got, err := w.m.ReadAt(p.buf[:roundUp(n)], off)
		if got < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			w.fail(fmt.Errorf("verify slot %s offset %d: %w", w.part.Path, off+int64(got), cause(err)))
			return
		}
		w.done.readBack.Add(int64(n))
		full <- p // there is room for each buffer
	}
}
