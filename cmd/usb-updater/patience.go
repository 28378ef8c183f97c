package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// stallLimit is how long one read of a stick may take while an artifact is
// installed. The kernel's own time limits for a USB stick that does not answer
// are shorter, and end in an error.
const stallLimit = 60 * time.Second

// errStalled means that a stick gave nothing for too long.
func errStalled(limit time.Duration) error {
	return fmt.Errorf("the stick did not answer for %v", limit)
}

// leaveBehind runs f, and leaves it behind if it has not returned some time
// after the end of ctx: a call that hangs in the kernel cannot be stopped.
func leaveBehind[T any](ctx context.Context, grace time.Duration, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-timer.C:
		var none T
		return none, context.Cause(ctx)
	}
}

// maxRead is how much patientReader reads at a time, in bytes.
const maxRead = 128 << 10

// patientReader reads a file of a stick, and gives up when its context ends or
// when one read takes longer than limit. Its error is its last word: the read
// may still be going on, in a buffer that nobody else uses.
type patientReader struct {
	ctx   context.Context
	file  io.Reader
	limit time.Duration

	buf []byte
	err error
}

// Read reads into a buffer of its own, and copies.
func (r *patientReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.ctx.Err() != nil {
		r.err = context.Cause(r.ctx)
		return 0, r.err
	}
	if r.buf == nil {
		r.buf = make([]byte, maxRead)
	}
	buf := r.buf[:min(len(p), maxRead)]
	ctx, cancel := context.WithTimeoutCause(r.ctx, r.limit, errStalled(r.limit))
	defer cancel()
	n, err := leaveBehind(ctx, 0, func() (int, error) { return r.file.Read(buf) })
	r.err = err
	return copy(p, buf[:n]), err
}
