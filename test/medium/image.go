package medium

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
)

// BlockSize is the unit in which an image remembers changes, in bytes.
const BlockSize = 4096

// Image is the content of a disk: a base that nobody changes, and the blocks
// that differ from it. It is not safe for concurrent use.
type Image struct {
	base   io.ReaderAt // at most size bytes; zeros behind its end
	size   int64       // in bytes, a multiple of BlockSize
	parent *Image      // read where the image has no block of its own; nil: base
	blocks map[int64][]byte
}

var zeroBlock = make([]byte, BlockSize)

// NewImage returns an image with the content of base.
func NewImage(base io.ReaderAt, size int64) (*Image, error) {
	if size <= 0 || size%BlockSize != 0 {
		return nil, fmt.Errorf("image of %d bytes: not a multiple of %d", size, BlockSize)
	}
	return &Image{base: base, size: size, blocks: map[int64][]byte{}}, nil
}

// Size returns the size in bytes.
func (m *Image) Size() int64 { return m.size }

// Clone returns a copy that is changed on its own.
func (m *Image) Clone() *Image {
	c := *m
	c.blocks = maps.Clone(m.blocks)
	return &c
}

// Over returns an image with the content of m, to be changed on its own while m
// stays as it is. It is cheaper than a [Image.Clone] for a few changes.
func (m *Image) Over() *Image {
	return &Image{base: m.base, size: m.size, parent: m, blocks: map[int64][]byte{}}
}

// Block returns a block by its number. The caller must not change it.
func (m *Image) Block(n int64) ([]byte, error) {
	for at := m; at != nil; at = at.parent {
		if b, ok := at.blocks[n]; ok {
			return b, nil
		}
	}
	b := make([]byte, BlockSize)
	if _, err := m.base.ReadAt(b, n*BlockSize); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read block %d: %w", n, err)
	}
	return b, nil
}

// ReadAt implements [io.ReaderAt].
func (m *Image) ReadAt(p []byte, off int64) (int, error) {
	if err := m.inside(off, int64(len(p))); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		n, in := (off+int64(done))/BlockSize, (off+int64(done))%BlockSize
		b, err := m.Block(n)
		if err != nil {
			return done, err
		}
		done += copy(p[done:], b[in:])
	}
	return done, nil
}

// WriteAt implements [io.WriterAt], except that it keeps p: nobody may change it
// afterwards.
func (m *Image) WriteAt(p []byte, off int64) (int, error) {
	if err := m.inside(off, int64(len(p))); err != nil {
		return 0, err
	}
	for done := 0; done < len(p); {
		n, in := (off+int64(done))/BlockSize, (off+int64(done))%BlockSize
		part := p[done:min(len(p), done+int(BlockSize-in))]
		if len(part) == BlockSize {
			m.blocks[n] = part
		} else {
			old, err := m.Block(n)
			if err != nil {
				return done, err
			}
			changed := bytes.Clone(old) // blocks are shared with copies of the image
			copy(changed[in:], part)
			m.blocks[n] = changed
		}
		done += len(part)
	}
	return len(p), nil
}

// Zero writes length zeros.
func (m *Image) Zero(off, length int64) error {
	if err := m.inside(off, length); err != nil {
		return err
	}
	for length > 0 {
		n := min(length, BlockSize-off%BlockSize)
		if n == BlockSize {
			m.blocks[off/BlockSize] = zeroBlock
		} else if _, err := m.WriteAt(zeroBlock[:n], off); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

func (m *Image) inside(off, length int64) error {
	if off < 0 || length < 0 || off > m.size-length {
		return fmt.Errorf("%d bytes at %d: behind the end of %d bytes", length, off, m.size)
	}
	return nil
}

// Save writes length bytes from off to a new sparse file.
func (m *Image) Save(path string, off, length int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = f.Truncate(length)
	for n := int64(0); n < length && err == nil; n += BlockSize {
		var b []byte
		if b, err = m.Block((off + n) / BlockSize); err == nil && !bytes.Equal(b, zeroBlock) {
			_, err = f.WriteAt(b, n)
		}
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Changed calls visit with each block that the image itself has, in no order:
// of an image that is over another one, what differs from that.
func (m *Image) Changed(visit func(n int64)) {
	for n := range m.blocks {
		visit(n)
	}
}
