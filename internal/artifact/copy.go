package artifact

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Lender is a destination that lends out its own memory to be filled, so that
// decoding, hashing and writing go on at the same time without a copy.
//
// Next waits for a buffer that may be filled; it is never empty. It returns an
// error when ctx ends, or when the destination has failed. Commit hands over
// the first n bytes of the oldest buffer that Next has lent; only the last one
// of a stream may have n below its length. Next is called by one goroutine and
// Commit by another; both keep the order.
type Lender interface {
	Next(ctx context.Context) ([]byte, error)
	Commit(n int) error
}

// chunks makes a Lender of any writer.
type chunks struct {
	w    io.Writer
	free chan []byte
	lent chan []byte
}

// chunkBuffers is one buffer to fill and one to hash and write.
const chunkBuffers = 2

// newChunks returns a Lender for files of at most size bytes.
func newChunks(size int64) *chunks {
	c := &chunks{free: make(chan []byte, chunkBuffers), lent: make(chan []byte, chunkBuffers)}
	for range chunkBuffers {
		c.free <- make([]byte, min(size, ChunkSize))
		if size <= ChunkSize {
			break
		}
	}
	return c
}

// Next waits until the buffer before the last has been written.
func (c *chunks) Next(ctx context.Context) ([]byte, error) {
	select {
	case b := <-c.free:
		c.lent <- b
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Commit writes in the goroutine of its caller.
func (c *chunks) Commit(n int) error {
	b := <-c.lent
	written, err := c.w.Write(b[:n])
	if err == nil && written != n {
		err = io.ErrShortWrite
	}
	c.free <- b
	return err
}

// hasherQueue is how many filled buffers may wait to be hashed; the
// destination's own number bounds them, too.
const hasherQueue = 4

// hasher is the second stage of a copy: it hashes each buffer and then commits
// it. It has a goroutine of its own, because without SHA instructions it is the
// slowest stage of all.
type hasher struct {
	in     chan []byte
	done   chan struct{}
	cancel context.CancelFunc // ends the first stage when this one has failed
	sum    hash.Hash
	err    error // once done is closed
	panic  any
}

// startHasher returns a hasher and the context of the stage before it.
func startHasher(ctx context.Context, dst Lender) (*hasher, context.Context) {
	inner, cancel := context.WithCancel(ctx)
	h := &hasher{in: make(chan []byte, hasherQueue), done: make(chan struct{}), cancel: cancel, sum: sha256.New()}
	go h.run(inner, dst)
	return h, inner
}

func (h *hasher) run(ctx context.Context, dst Lender) {
	defer close(h.done)
	defer func() {
		if h.panic = recover(); h.panic != nil { // it goes on in the goroutine of Copy
			h.cancel()
		}
	}()
	for piece := range h.in {
		if h.err != nil || ctx.Err() != nil {
			continue // the first stage is about to see it
		}
		h.sum.Write(piece)
		if h.err = dst.Commit(len(piece)); h.err != nil {
			h.cancel()
		}
	}
}

// put hands a filled buffer over.
func (h *hasher) put(ctx context.Context, piece []byte) error {
	select {
	case h.in <- piece:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end waits for what was put, and returns the error of the stage.
func (h *hasher) end() error {
	close(h.in)
	<-h.done
	h.cancel()
	if h.panic != nil {
		panic(h.panic)
	}
	return h.err
}

// copyFile copies the pending file in two stages, this one and the hasher. The
// verdict on the checksum is made when both have ended.
func (a *Artifact) copyFile(ctx context.Context, f File, open func(File) (io.Writer, error)) error {
	w, err := open(f)
	if err != nil {
		return fmt.Errorf("open destination of %s: %w", quote(f.Name), err)
	}
	dst, ok := w.(Lender)
	if !ok {
		dst = a.lend(w, f.Size)
	}
	h, inner := startHasher(ctx, dst)
	err, last := a.fill(inner, f, dst, h), h.end()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("copy %s: %w", quote(f.Name), stopError(ctx))
	case last != nil: // the first stage, too, ended with it
		return fmt.Errorf("copy %s: %w", quote(f.Name), last)
	case err != nil:
		return err
	}
	want := a.todo[f.Name]
	if got := h.sum.Sum(nil); [32]byte(got) != want {
		return wrongChecksum(want[:], got)
	}
	delete(a.todo, f.Name)
	return nil
}

// lend returns a Lender around w. Its buffers serve one file after the other.
func (a *Artifact) lend(w io.Writer, size int64) *chunks {
	if size = min(size, ChunkSize+1); a.chunks == nil || size > a.chunkSize {
		a.chunks, a.chunkSize = newChunks(size), size
	}
	a.chunks.w = w
	return a.chunks
}

// fill is the first stage: it decodes into the buffers of dst.
func (a *Artifact) fill(ctx context.Context, f File, dst Lender, h *hasher) error {
	for left := f.Size; left > 0; {
		buf, err := dst.Next(ctx)
		if err != nil {
			return fmt.Errorf("copy %s: %w", quote(f.Name), err)
		}
		buf = buf[:min(left, int64(len(buf)))]
		if err := readFull(a.inner, buf, "data archive"); err != nil {
			return err
		}
		if err := h.put(ctx, buf); err != nil {
			return fmt.Errorf("copy %s: %w", quote(f.Name), err)
		}
		left -= int64(len(buf))
	}
	return nil
}

// stopError is why ctx has ended, and always wraps the error of ctx, too.
func stopError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
