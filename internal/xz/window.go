package xz

import (
	"encoding/binary"
	"math"
)

const (
	// firstWindow is what a window begins with, in bytes, if the dictionary is
	// larger: the archive of a header never needs more.
	firstWindow = 256 << 10
	// copySlack is how many bytes behind the current position copyMatch may
	// spoil. The window is larger than the dictionary by it. It is a multiple
	// of maxPosStates.
	copySlack = 64
	// maxWindow is the largest dictionary in bytes that an int can count.
	maxWindow = uint64(math.MaxInt - 4*copySlack)
)

// window is the dictionary: a ring of the last bytes. It is also the buffer that
// output is taken from.
type window struct {
	buf     []byte // size bytes and copySlack behind them
	pos     int    // where the next byte goes
	size    int    // the ring's, a multiple of maxPosStates
	target  int    // what size may become
	dict    uint32 // largest distance
	wrapped bool   // all of the ring has been written
}

// open prepares for a block with a dictionary of dict bytes that decodes to at
// most total bytes. A ring in use is kept if it is large enough, else dropped.
func (w *window) open(dict uint32, total uint64) {
	need := min(uint64(dict), total) + copySlack
	w.target = int((need + posStateMask) &^ posStateMask)
	w.dict = dict
	if w.size < w.target && w.size != firstWindow {
		w.alloc(min(w.target, firstWindow))
	}
	w.reset()
}

func (w *window) alloc(size int) {
	w.buf = make([]byte, size+copySlack)
	w.size = size
}

// reset forgets the dictionary.
func (w *window) reset() {
	w.pos = 0
	w.wrapped = false
}

// room makes room for at least one byte. A full ring that is not yet as large as
// the dictionary grows to it in one step: the memory of a large fresh slice is
// not touched, so that it becomes real only as far as the output fills it, and
// there is never an old window beside a new one that is nearly as large.
func (w *window) room() {
	switch {
	case w.pos < w.size:
	case w.size < w.target && !w.wrapped:
		old := w.buf[:w.pos]
		w.alloc(w.target)
		copy(w.buf, old)
	default:
		w.pos = 0
		w.wrapped = true
	}
}

// last returns the byte before the current position, 0 if there is none.
func (w *window) last() uint32 {
	if w.pos > 0 {
		return uint32(w.buf[w.pos-1])
	}
	if w.wrapped {
		return uint32(w.buf[w.size-1])
	}
	return 0
}

// at returns the byte at a distance, less one, that reaches.
func (w *window) at(pos int, dist uint32) uint32 {
	src := pos - int(dist) - 1
	if src < 0 {
		src += w.size
	}
	return uint32(w.buf[src])
}

// reaches reports whether the byte at a distance, less one, is in the dictionary.
func (w *window) reaches(pos int, dist uint32) bool {
	return dist < w.dict && (uint(dist) < uint(pos) || w.wrapped)
}

// repeat appends n bytes from a distance, less one, up to limit. It returns how
// many are left.
func (w *window) repeat(dist uint32, n, limit int) int {
	src := w.pos - int(dist) - 1
	if src < 0 {
		src += w.size
	}
	for ; n > 0 && w.pos < limit; n-- {
		w.buf[w.pos] = w.buf[src]
		w.pos++
		if src++; src == w.size {
			src = 0
		}
	}
	return n
}

// copyMatch appends n bytes from a distance at pos. It may write up to copySlack
// bytes more: they are not yet decoded, or older than the dictionary.
func copyMatch(buf []byte, pos, dist, n int) {
	src := pos - dist
	if dist >= 8 {
		if n > 32 && dist >= n {
			copy(buf[pos:pos+n], buf[src:])
			return
		}
		for end := pos + n; pos < end; {
			binary.LittleEndian.PutUint64(buf[pos:], binary.LittleEndian.Uint64(buf[src:]))
			pos += 8
			src += 8
		}
		return
	}
	// A pattern shorter than a word. Once it is written over 16 bytes, a
	// multiple of its length that is a word or more leads to the same bytes.
	for i := range min(n, 16) {
		buf[pos+i] = buf[src+i]
	}
	far := dist * int([8]uint8{0, 8, 4, 3, 2, 2, 2, 2}[dist&7])
	for i := 16; i < n; i += 8 {
		binary.LittleEndian.PutUint64(buf[pos+i:], binary.LittleEndian.Uint64(buf[pos+i-far:]))
	}
}
