package report

import "io"

// Results is where a program writes what it was asked for. It remembers the
// first write that failed, so that the program can tell who asked.
type Results struct {
	w   io.Writer
	err error
}

// NewResults returns the results that go to w.
func NewResults(w io.Writer) *Results { return &Results{w: w} }

// Write writes to where the results go.
func (r *Results) Write(p []byte) (int, error) {
	n, err := r.w.Write(p)
	if r.err == nil {
		r.err = err
	}
	return n, err
}

// Err returns the first error of a write, nil if everything was written.
func (r *Results) Err() error { return r.err }
