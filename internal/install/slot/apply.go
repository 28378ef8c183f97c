package slot

import (
	"errors"
	"fmt"
	"io"
)

const (
	// zeroMax bounds one command to zero, in bytes, so that a stage can be
	// stopped within a moment.
	zeroMax = 64 << 20
	// zeroFirst bounds the first command. If the driver cannot do what it
	// promises, the kernel sends as many zeros instead, and nothing stops it.
	zeroFirst = 1 << 20
)

// apply is the second stage: it brings the medium to what the runs say. The
// order of the writes is that of the image, because a UBI volume takes no other;
// on a block device it does not matter, as none counts before the flush.
func (w *Writer) apply(b *block) {
	for _, r := range b.runs {
		if w.stopped() {
			return
		}
		if r.zero {
			w.zero(b.off+int64(r.off), int64(r.n))
			continue
		}
		w.write(b.buf[r.off:r.off+r.n], b.off+int64(r.off))
	}
}

func (w *Writer) write(p []byte, off int64) {
	began := w.comparer.now()
	n, err := w.m.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.fail(fmt.Errorf("write slot %s offset %d: %w", w.part.Path, off+int64(n), cause(err)))
		return
	}
	w.rate.add(n, w.comparer.now().Sub(began))
	w.done.written.Add(int64(n))
}

// zero adds to the run of zeros that waits, or begins the next one.
func (w *Writer) zero(off, n int64) {
	limit := int64(zeroMax)
	if w.done.zeroed.Load() == 0 {
		limit = zeroFirst
	}
	if w.pending.off+w.pending.n != off || w.pending.n+n > limit {
		w.command()
		w.pending = run64{off: off}
	}
	w.pending.n += n
}

// command makes the medium zero what waits. A driver that says it can and then
// refuses is not asked again: the zeros are sent.
func (w *Writer) command() {
	off, n := w.pending.off, w.pending.n
	w.pending = run64{}
	switch {
	case n == 0:
		return
	case !w.zeroes.Load(): // planned before the driver refused
		w.sendZeros(off, n)
		return
	}
	err := w.m.Zero(off, n)
	switch {
	case err == nil:
		w.done.zeroed.Add(n)
	case errors.Is(err, errSent):
		w.zeroes.Store(false)
		w.done.written.Add(n)
	case errors.Is(err, errors.ErrUnsupported):
		w.zeroes.Store(false)
		w.sendZeros(off, n)
	default:
		w.fail(fmt.Errorf("zero slot %s offset %d: %w", w.part.Path, off, cause(err)))
	}
}

func (w *Writer) sendZeros(off, n int64) {
	for end := off + n; off < end && !w.stopped(); off += zeroRun {
		w.write(w.ring.zeros[:min(zeroRun, end-off)], off)
	}
}
