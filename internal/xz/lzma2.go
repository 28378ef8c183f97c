package xz

import (
	"io"
)

const (
	maxCompressed = 1 << 16 // of a chunk
	rangeInit     = 5       // bytes that begin an LZMA chunk
	// burstSize is how much is decoded at once, in bytes. It stays in the
	// processor's cache until it is checked and copied.
	burstSize = 64 << 10
)

// Control bytes of LZMA2 chunks (source: XZ Embedded, xz_dec_lzma2.c).
const (
	chunkEnd         = 0x00
	chunkStoredReset = 0x01 // forget the dictionary
	chunkStored      = 0x02
	chunkLZMA        = 0x80 // from here on: five bits are bits 16 to 20 of the size
	chunkState       = 0xa0 // reset the state
	chunkProperties  = 0xc0 // and new properties follow
	chunkReset       = 0xe0 // and forget the dictionary
)

// lzma2 decodes the data of one block.
type lzma2 struct {
	window window
	lzma   lzma

	left          int    // uncompressed bytes of the chunk that are not yet decoded
	room          uint64 // bytes that the block may still decode to
	stored        bool   // the chunk is not compressed
	needsReset    bool   // the dictionary must be reset: nothing has been
	needsProperty bool   // there are no valid properties
}

// open starts a block with a dictionary of dict bytes that decodes to at most
// total bytes.
func (l *lzma2) open(dict uint32, total uint64) {
	l.window.open(dict, total)
	l.left, l.room = 0, total
	l.needsReset, l.needsProperty = true, true
}

// decode returns the next bytes, which are valid until the next call. At the end
// of the block's data it returns io.EOF.
func (l *lzma2) decode(in *input) ([]byte, error) {
	if l.left == 0 {
		if err := l.chunk(in); err != nil {
			return nil, err
		}
	}
	w := &l.window
	w.room()
	start := w.pos
	limit := start + min(w.size-start, l.left, burstSize)
	if l.stored {
		if err := in.need(1); err != nil {
			return nil, unexpected(err)
		}
		w.pos += copy(w.buf[start:limit], in.buf[in.pos:in.end])
		in.pos += w.pos - start
		l.left -= w.pos - start
		return w.buf[start:w.pos], nil
	}
	ok := l.lzma.run(w, &in.buf, limit)
	if l.left -= w.pos - start; l.left == 0 {
		ok = ok && l.lzma.ended(&in.buf)
		in.pos = l.lzma.inEnd
	}
	if !ok {
		return nil, in.corrupt("LZMA data")
	}
	return w.buf[start:w.pos], nil
}

// chunk reads the header of the next chunk and, if it is compressed, all of it.
func (l *lzma2) chunk(in *input) error {
	head, err := in.next(1)
	if err != nil {
		return err
	}
	control := head[0]
	switch {
	case control == chunkEnd:
		return io.EOF
	case control >= chunkReset, control == chunkStoredReset:
		l.needsReset, l.needsProperty = false, true
		l.window.reset()
	case l.needsReset, control > chunkStored && control < chunkLZMA:
		return in.corrupt("LZMA2 chunk type")
	}
	l.stored = control < chunkLZMA
	if head, err = in.next(2); err != nil {
		return err
	}
	l.left = int(head[0])<<8 + int(head[1]) + 1
	if !l.stored {
		l.left += int(control&0x1f) << 16
	}
	if uint64(l.left) > l.room {
		return in.corrupt("more content than the block header says")
	}
	l.room -= uint64(l.left)
	if l.stored {
		return nil
	}
	if head, err = in.next(2); err != nil {
		return err
	}
	compressed := int(head[0])<<8 + int(head[1]) + 1
	switch {
	case control >= chunkProperties:
		if head, err = in.next(1); err != nil {
			return err
		}
		if !l.lzma.setProperties(head[0]) {
			return in.corrupt("LZMA properties")
		}
		l.needsProperty = false
	case l.needsProperty:
		return in.corrupt("LZMA2 chunk without properties")
	case control >= chunkState:
		l.lzma.reset()
	}
	if err := in.need(compressed); err != nil {
		return unexpected(err)
	}
	if !l.lzma.begin(&in.buf, in.pos, in.pos+compressed) {
		return in.corrupt("beginning of an LZMA chunk")
	}
	return nil
}
