package xz

import (
	"encoding/binary"
)

// States say what the last symbols were. Those below literalStates follow a
// literal (source: LZMA specification, "State Machine").
const (
	states        = 12
	literalStates = 7
)

// The sizes of some arrays are rounded up to powers of two. Their indexes are
// masked, and so the compiler leaves out the checks.
const (
	stateMask      = 15
	maxPosStates   = 16
	posStateMask   = maxPosStates - 1
	literalCoders  = 16  // lc + lp <= 4
	literalSize    = 768 // 256 for a plain literal, 512 for one behind a match
	literalMatched = 256
	literalTop     = 256
)

// literalTree holds the probabilities of a literal in one context.
type literalTree [literalSize]uint16

// lzma is the LZMA decoder: probabilities, and what the last symbols were.
type lzma struct {
	state       uint32
	distances   [4]uint32 // the last four, minus one, latest first
	pending     int       // bytes of the last match that are not yet in the dictionary
	lc          uint32    // bits of the byte before that choose a literal's context
	literalMask uint32    // position bits that do
	posMask     uint32    // position bits that choose other contexts

	coder rangeCoder
	inEnd int // end of the chunk in the input buffer

	isMatch    [stateMask + 1][maxPosStates]uint16
	isRep0Long [stateMask + 1][maxPosStates]uint16
	isRep      [stateMask + 1]uint16
	isRep0     [stateMask + 1]uint16
	isRep1     [stateMask + 1]uint16
	isRep2     [stateMask + 1]uint16
	slots      [lengthStates][slotCount]uint16
	special    [specialSize]uint16
	align      [alignSize]uint16
	matchLen   lengthCoder
	repLen     lengthCoder
	literals   [literalCoders]literalTree
}

// setProperties takes the byte that holds lc, lp and pb and resets the state. It
// reports whether the byte is valid.
func (d *lzma) setProperties(b byte) bool {
	lc, lp, pb := uint32(b%9), uint32(b/9%5), uint32(b/45)
	if pb > 4 || lc+lp > 4 {
		return false
	}
	d.lc, d.literalMask, d.posMask = lc, 1<<lp-1, 1<<pb-1
	d.reset()
	return true
}

// reset forgets everything but the properties.
func (d *lzma) reset() {
	d.state = 0
	d.distances = [4]uint32{}
	for i := range d.isMatch {
		fill(d.isMatch[i][:])
		fill(d.isRep0Long[i][:])
	}
	for _, p := range [][]uint16{
		d.isRep[:], d.isRep0[:], d.isRep1[:], d.isRep2[:], d.special[:], d.align[:],
	} {
		fill(p)
	}
	for i := range d.slots {
		fill(d.slots[i][:])
	}
	d.matchLen.reset()
	d.repLen.reset()
	for i := range d.literals {
		fill(d.literals[i][:])
	}
}

func fill(p []uint16) {
	for i := range p {
		p[i] = probHalf
	}
}

// begin starts a chunk at in[from:to].
func (d *lzma) begin(in *inputBuffer, from, to int) bool {
	if to-from < rangeInit || in[from] != 0 {
		return false
	}
	d.coder = rangeCoder{rng: 1<<32 - 1, code: binary.BigEndian.Uint32(in[from+1:]), pos: from + rangeInit}
	d.inEnd = to
	d.pending = 0
	return true
}

// ended reports whether the chunk ends here, as the encoder ends it: all input
// is used, and the code is zero.
func (d *lzma) ended(in *inputBuffer) bool {
	if d.coder.rng < rangeTop {
		d.coder.rng <<= 8
		d.coder.code = d.coder.code<<8 | uint32(in[d.coder.pos])
		d.coder.pos++
	}
	return d.coder.pos == d.inEnd && d.coder.code == 0 && d.pending == 0
}

// run decodes symbols to w until w.pos is limit or the input is used up. It
// reports whether they are valid.
//
// Every symbol consumes less than inputMargin bytes, so that there is one look
// at the input's end for each symbol and none for each bit.
func (d *lzma) run(w *window, in *inputBuffer, limit int) bool {
	if d.pending > 0 {
		d.pending = w.repeat(d.distances[0], d.pending, limit)
	}
	buf, pos := w.buf, w.pos
	c, state := d.coder, d.state
	prev := w.last()
	for pos < limit && c.pos <= d.inEnd {
		posState := uint32(pos) & d.posMask & posStateMask
		var isMatch bool
		if isMatch, c = c.bit(in, &d.isMatch[state&stateMask][posState]); !isMatch {
			tree := &d.literals[(uint32(pos)&d.literalMask<<d.lc|prev>>(8-d.lc))&(literalCoders-1)]
			if state < literalStates {
				prev, c = c.literal(in, tree)
				state = max(state, 3) - 3
			} else {
				prev, c = c.matchedLiteral(in, tree, w.at(pos, d.distances[0]))
				state -= 3
				if state >= literalStates {
					state -= 3
				}
			}
			buf[pos] = byte(prev)
			pos++
			continue
		}
		var n int
		n, state, c = d.match(in, c, state, posState)
		dist := d.distances[0]
		switch {
		case uint(dist) < uint(pos) && dist < w.dict && n <= limit-pos:
			copyMatch(buf, pos, int(dist)+1, n)
			pos += n
		case w.reaches(pos, dist):
			w.pos = pos
			d.pending = w.repeat(dist, n, limit)
			pos = w.pos
		default:
			return false
		}
		prev = uint32(buf[pos-1])
	}
	w.pos = pos
	d.coder, d.state = c, state
	return c.pos <= d.inEnd
}
