package slot

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// blockSize is the largest write, in bytes. Below it writes cost more of
	// the processor and of slow media, above it little is gained.
	blockSize = 256 << 10
	// ringBlocks is how many blocks there are: one that is filled, one that is
	// hashed, one that is compared and one that is written.
	ringBlocks = 4
	// heldSize is how much is read at once of what the medium held before, in
	// bytes, where it can be: slow media take their time for each request.
	heldSize = 2 * blockSize
	// memorySize is all that a Writer needs for data, in bytes: the ring, what
	// the medium held before, and zeros.
	memorySize = ringBlocks*blockSize + heldSize + zeroRun
	// verifySize is the largest read of [Writer.Verify], in bytes. It has
	// verifyBuffers of them: the ring is not in use then.
	verifySize    = ringBlocks * blockSize / verifyBuffers
	verifyBuffers = 2
)

// block is one piece of the image on its way.
type block struct {
	buf  []byte // blockSize bytes, aligned to a page
	n    int    // used
	off  int64  // where they belong
	runs []run  // what has to change
}

// ring is the memory of a Writer. It is not the garbage collector's: direct I/O
// needs its alignment, and it must not move the collector's pace.
type ring struct {
	memory []byte
	free   chan *block
	held   []byte // heldSize
	zeros  []byte // zeroRun of them; never written to
}

func newRing() (*ring, error) {
	m, err := unix.Mmap(-1, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("allocate %d bytes: %w", memorySize, err)
	}
	r := &ring{memory: m, free: make(chan *block, ringBlocks), held: m[ringBlocks*blockSize:][:heldSize], zeros: m[memorySize-zeroRun:]}
	for i := range ringBlocks {
		buf := m[i*blockSize : (i+1)*blockSize : (i+1)*blockSize]
		r.free <- &block{buf: buf, runs: make([]run, 0, blockSize/cellSize/2+1)}
	}
	return r, nil
}

// release gives the memory back. Nothing may use it any more.
func (r *ring) release() error { return unix.Munmap(r.memory) }
