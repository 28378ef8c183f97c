package bootenv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// grubSector is the part of a block that storage writes as one, in bytes.
const grubSector = 512

// blockOpener opens a file with a GRUB environment block, or one of the small
// files beside it. It neither creates nor truncates it.
type blockOpener func(path string, write bool) (medium, error)

// flushError is a failed flush, after which nothing on the medium is certain.
type flushError struct{ cause error }

func (e *flushError) Error() string { return "flush: " + e.cause.Error() }
func (e *flushError) Unwrap() error { return e.cause }

// openBlock opens a file of the system.
func openBlock(path string, write bool) (medium, error) {
	return openFile("/sys", Copy{Path: path, Size: grubBlockSize}, write)
}

// read returns the content of a file, cut after one byte more than a block has.
// With sync set, it is what the medium has and not only a cache.
func (open blockOpener) read(path string, sync bool) (_ []byte, err error) {
	m, err := open(path, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if sync {
		if err := m.Sync(); err != nil {
			return nil, &flushError{err}
		}
	}
	b := make([]byte, grubBlockSize+1)
	n, err := m.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

// write overwrites a part of a file in place, flushes it and compares. On error
// the bytes are the old ones, the new ones or any mixture of their sectors.
func (open blockOpener) write(path string, off int64, b []byte) (err error) {
	m, err := open(path, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if _, err := m.WriteAt(b, off); err != nil {
		return err
	}
	if err := m.Sync(); err != nil {
		return &flushError{err}
	}
	got := make([]byte, len(b))
	if _, err := m.ReadAt(got, off); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(got, b) {
		return ErrVerify
	}
	return nil
}

// writable tells whether a file can be opened for writing. It changes nothing.
func (open blockOpener) writable(path string) error {
	m, err := open(path, true)
	if err != nil {
		return err
	}
	return m.Close()
}

// differ returns the first sector in which two blocks differ and how many do.
func differ(a, b []byte) (first, count int) {
	first = -1
	for i := range grubBlockSize / grubSector {
		if at := i * grubSector; !bytes.Equal(a[at:at+grubSector], b[at:at+grubSector]) {
			if first < 0 {
				first = i
			}
			count++
		}
	}
	return first, count
}
