package slot

import (
	"encoding/binary"
	"hash/maphash"
)

const (
	// groupSize is the unit of what is read back, in bytes: cells that were
	// seen to be right are read again if they share a group with one that was
	// written. Cards keep track of their content by units of about this size,
	// and rewrite a whole one. It divides blockSize.
	groupSize = 32 << 10
	// expectedBlocks is for how many blocks it is remembered what must be read
	// back: of an image of 16 GiB all, in 1 MiB of memory. Behind them
	// everything is.
	expectedBlocks = 16 << 30 / blockSize
	everyGroup     = 1<<(blockSize/groupSize) - 1
)

// expected is what the medium must hold after the writing, as far as comparing
// has not shown it before: which groups, and a fingerprint of each block's. The
// compare stage adds; once that has ended, [checker] holds it against what is
// read.
//
// A fingerprint is no cryptographic hash, and need not be one: what it stands
// for is verified by the checksum of the stream, and its key is drawn for each
// Writer, so that no content, and no fault of a medium, can be made to fit it.
// That other bytes have the same one has a probability of 2^-64.
type expected struct {
	all    bool // what comparing has shown does not count
	key    maphash.Seed
	zero   uint64 // fingerprint of a cell of zeros
	blocks []blockExpected
	rest   blockExpected // of all blocks behind those
}

// blockExpected is expected of one block. The zero value expects nothing.
type blockExpected struct {
	sum    uint64 // of the cells in groups, in the order of the image
	groups uint8  // a bit for each group
}

// newExpected returns what expects nothing of an image of size bytes yet.
func newExpected(size int64, all bool) *expected {
	e := &expected{all: all, key: maphash.MakeSeed(), blocks: make([]blockExpected, min((size+blockSize-1)/blockSize, expectedBlocks))}
	e.zero = maphash.Bytes(e.key, make([]byte, cellSize))
	return e
}

// at returns the entry of the block at an offset of the partition.
func (e *expected) at(off int64) *blockExpected {
	if i := off / blockSize; i < int64(len(e.blocks)) {
		return &e.blocks[i]
	}
	return &e.rest
}

// add takes a block whose runs are known.
func (e *expected) add(b *block) {
	x := e.at(b.off)
	groups := e.groups(b, x)
	x.groups |= groups
	next := 0 // run
	for at := 0; at < b.n; at += cellSize {
		for next < len(b.runs) && b.runs[next].off+b.runs[next].n <= at {
			next++
		}
		switch {
		case groups>>(at/groupSize)&1 == 0:
		case next < len(b.runs) && b.runs[next].zero && b.runs[next].off <= at:
			x.sum = e.fold(x.sum, b.off+int64(at), e.zero)
		default:
			x.sum = e.fold(x.sum, b.off+int64(at), maphash.Bytes(e.key, b.buf[at:min(at+cellSize, b.n)]))
		}
	}
}

// groups returns which groups of a block have to be read back.
func (e *expected) groups(b *block, x *blockExpected) uint8 {
	if e.all || x == &e.rest {
		return everyGroup
	}
	var groups uint8
	for _, r := range b.runs {
		first, last := r.off/groupSize, (r.off+r.n-1)/groupSize
		groups |= uint8(1<<(last+1) - 1<<first)
	}
	return groups
}

// fold adds the fingerprint of the cell at off to sum.
func (e *expected) fold(sum uint64, off int64, cell uint64) uint64 {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], sum)
	binary.LittleEndian.PutUint64(b[8:], uint64(off))
	binary.LittleEndian.PutUint64(b[16:], cell)
	return maphash.Bytes(e.key, b[:])
}

// next returns the next range that has to be read back, from off on and up to
// limit bytes long, within an image of size bytes. n is 0 if there is none.
func (e *expected) next(off, size int64, limit int) (start int64, n int) {
	for off < size && !e.wants(off) {
		off += groupSize
	}
	start = off
	for off < size && int(off-start) < limit && e.wants(off) {
		off += groupSize
	}
	return start, int(min(off, size) - start)
}

// wants reports whether the group at off has to be read back.
func (e *expected) wants(off int64) bool {
	return e.at(off).groups>>(off%blockSize/groupSize)&1 != 0
}

// checker holds what is read back against what is expected.
type checker struct {
	*expected
	x   *blockExpected // of the block at hand
	off int64          // of that block
	sum uint64
}

// add takes the next range, in the order of [expected.next]. It returns false
// and the offset of the block when a block is complete and wrong.
func (c *checker) add(p []byte, off int64) (wrong int64, ok bool) {
	for at := 0; at < len(p); at += cellSize {
		here := off + int64(at)
		if x := c.at(here); x != c.x {
			if wrong, ok := c.end(); !ok {
				return wrong, false
			}
			c.x, c.off, c.sum = x, here-here%blockSize, 0
		}
		c.sum = c.fold(c.sum, here, maphash.Bytes(c.key, p[at:min(at+cellSize, len(p))]))
	}
	return 0, true
}

// end is add for the last block.
func (c *checker) end() (wrong int64, ok bool) { return c.off, c.x == nil || c.sum == c.x.sum }
