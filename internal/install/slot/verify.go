package slot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// Verify reads the image back from the medium and compares its SHA-256 with
// want. It is called after [Writer.Sync], so that the medium cannot answer from
// what it has not stored yet. Everything is read, also what was right before:
// the checksum covers all of it. A difference is [ErrMismatch].
//
// Reading and hashing go on at the same time, in the memory of the Writer. It
// ends with ctx.
func (w *Writer) Verify(ctx context.Context, want [sha256.Size]byte) error {
	if !w.ended || w.stopped() {
		return fmt.Errorf("verify slot %s: %w", w.part.Path, errClosed)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	full := make(chan *block, ringBlocks)
	w.work.Go(func() {
		defer close(full)
		defer w.rescue()
		w.readBack(ctx, full)
	})
	h := sha256.New()
	done := int64(0)
	for done < w.off {
		select {
		case b, more := <-full:
			if !more {
				return w.verifyError(ctx)
			}
			h.Write(b.buf[:b.n])
			done += int64(b.n)
			w.ring.free <- b // there is room for each block
		case <-ctx.Done():
			return w.verifyError(ctx)
		}
	}
	if got := [sha256.Size]byte(h.Sum(nil)); got != want {
		return fmt.Errorf("verify slot %s: %w: sha256 %x, want %x", w.part.Path, ErrMismatch, got, want)
	}
	return nil
}

// verifyError is why no more blocks come.
func (w *Writer) verifyError(ctx context.Context) error {
	if w.stopped() {
		return w.err
	}
	return fmt.Errorf("verify slot %s: %w", w.part.Path, context.Cause(ctx))
}

// readBack reads the image into free blocks until it ends or ctx does.
func (w *Writer) readBack(ctx context.Context, full chan<- *block) {
	for off := int64(0); off < w.off; {
		b, err := w.next(ctx)
		if err != nil {
			return
		}
		b.off, b.n = off, int(min(w.off-off, blockSize))
		// Whole cells, as direct I/O needs it, also at the end of the image.
		got, err := w.m.ReadAt(b.buf[:roundUp(b.n)], off)
		if got < b.n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			w.fail(fmt.Errorf("verify slot %s offset %d: %w", w.part.Path, off+int64(got), cause(err)))
			return
		}
		off += int64(b.n)
		full <- b // there is room for each block
	}
}
