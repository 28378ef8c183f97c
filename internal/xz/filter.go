package xz

import (
	"encoding/binary"
)

// Filter IDs (source: The .xz File Format, "Filter IDs").
const (
	filterDelta    = 0x03
	filterX86      = 0x04
	filterPowerPC  = 0x05
	filterIA64     = 0x06
	filterARM      = 0x07
	filterARMThumb = 0x08
	filterSPARC    = 0x09
	filterARM64    = 0x0a
)

const (
	maxFilters   = 3  // that may come before LZMA2
	maxLookAhead = 16 // bytes that a filter leaves undone are fewer
)

// filter undoes what was done to content before it was compressed.
type filter struct {
	// undo changes buf in place and returns how much of it is done. The rest
	// comes again, with more behind it. pos is the position of buf in the
	// content, which wraps around (source: XZ Embedded, xz_dec_bcj.c).
	undo func(buf []byte, pos uint32) int
	pos  uint32
	done int // in the buffer of filters
}

// filters is what stands between LZMA2 and the content of a block.
type filters struct {
	list  []filter // in the order of decoding
	buf   []byte   // each filter has done some of it, the first most
	final bool     // no more comes from LZMA2
}

func (f *filters) reset() {
	f.list = f.list[:0]
	f.buf = f.buf[:0]
	f.final = false
}

func (f *filters) used() bool  { return len(f.list) > 0 }
func (f *filters) ended() bool { return f.used() && f.final }

// add puts a filter before those that were added. It reports whether the filter
// is known and its properties make sense.
func (f *filters) add(id uint64, properties []byte) bool {
	if id == filterDelta {
		if len(properties) != 1 {
			return false
		}
		f.push(filter{undo: newDelta(int(properties[0]) + 1)})
		return true
	}
	var start uint32
	switch len(properties) {
	case 0:
	case 4:
		start = binary.LittleEndian.Uint32(properties)
	default:
		return false
	}
	undo, alignment := newBCJ(id)
	if undo == nil || start%alignment != 0 {
		return false
	}
	f.push(filter{undo: undo, pos: start})
	return true
}

func (f *filters) push(first filter) {
	f.list = append(f.list, filter{})
	copy(f.list[1:], f.list)
	f.list[0] = first
}

// run takes the next bytes from LZMA2, at most burstSize, and returns what all
// filters are done with, valid until the next call. What the filters leave at
// the end stays as it is.
func (f *filters) run(in []byte, final bool) []byte {
	if cap(f.buf) == 0 {
		f.buf = make([]byte, 0, burstSize+maxFilters*maxLookAhead)
	}
	returned := f.list[len(f.list)-1].done
	n := copy(f.buf, f.buf[returned:])
	f.buf = append(f.buf[:n], in...)
	f.final = final
	limit := len(f.buf)
	for i := range f.list {
		s := &f.list[i]
		s.done -= returned
		n := s.undo(f.buf[s.done:limit], s.pos)
		s.done += n
		s.pos += uint32(n)
		if final {
			s.done = limit
		}
		limit = s.done
	}
	return f.buf[:limit]
}

// newDelta returns a filter that adds to each byte the one a distance before it.
func newDelta(distance int) func(buf []byte, pos uint32) int {
	var before [256]byte
	at := uint8(0)
	return func(buf []byte, _ uint32) int {
		for i := range buf {
			buf[i] += before[uint8(int(at)-distance)]
			before[at] = buf[i]
			at++
		}
		return len(buf)
	}
}
