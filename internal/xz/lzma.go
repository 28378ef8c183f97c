package xz

// The range coder (source: LZMA specification, "Range Decoder").
const (
	probBits = 11
	probMax  = 1 << probBits
	probHalf = probMax / 2
	probMove = 5
	rangeTop = 1 << 24
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

	rng, code uint32 // of the range decoder
	in        int    // position in the input buffer
	inEnd     int    // end of the chunk in it

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

// begin starts a chunk at in.buf[from:to].
func (d *lzma) begin(in *inputBuffer, from, to int) bool {
	if to-from < rangeInit || in[from] != 0 {
		return false
	}
	d.code = uint32(in[from+1])<<24 | uint32(in[from+2])<<16 | uint32(in[from+3])<<8 | uint32(in[from+4])
	d.rng = 1<<32 - 1
	d.in, d.inEnd = from+rangeInit, to
	d.pending = 0
	return true
}

// ended reports whether the chunk ends here, as the encoder ends it: all input
// is used, and the code is zero.
func (d *lzma) ended(in *inputBuffer) bool {
	if d.rng < rangeTop {
		d.rng <<= 8
		d.code = d.code<<8 | uint32(in[d.in])
		d.in++
	}
	return d.in == d.inEnd && d.code == 0 && d.pending == 0
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
	rng, code, ip, state := d.rng, d.code, d.in, d.state
	prev := w.last()
	for pos < limit && ip <= d.inEnd {
		prob := &d.isMatch[state&stateMask][uint32(pos)&d.posMask&posStateMask]
		if rng < rangeTop {
			rng <<= 8
			code = code<<8 | uint32(in[ip])
			ip++
		}
		p := uint32(*prob)
		bound := rng >> probBits * p
		if code < bound {
			rng = bound
			*prob = uint16(p + (probMax-p)>>probMove)
			tree := &d.literals[(uint32(pos)&d.literalMask<<d.lc|prev>>(8-d.lc))&(literalCoders-1)]
			if state < literalStates {
				prev, rng, code, ip = literal(tree, in, rng, code, ip)
				state = max(state, 3) - 3
			} else {
				prev, rng, code, ip = matchedLiteral(tree, w.at(pos, d.distances[0]), in, rng, code, ip)
				state -= 3
				if state > 6 {
					state -= 3
				}
			}
			buf[pos] = byte(prev)
			pos++
			continue
		}
		*prob = uint16(p - p>>probMove)
		d.rng, d.code, d.in, d.state = rng-bound, code-bound, ip, state
		n := d.match(in, uint32(pos)&d.posMask&posStateMask)
		rng, code, ip, state = d.rng, d.code, d.in, d.state
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
	d.rng, d.code, d.in, d.state = rng, code, ip, state
	return ip <= d.inEnd
}

// literal decodes a byte. The two candidates for the next probability are read
// before it is known which of them it is: the processor would wait for one.
func literal(tree *literalTree, in *inputBuffer, rng, code uint32, ip int) (symbol, rng2, code2 uint32, ip2 int) {
	symbol = 1
	p := uint32(tree[1])
	for symbol < literalTop {
		low, next := uint32(tree[2*symbol]), uint32(tree[2*symbol+1])
		if rng < rangeTop {
			rng <<= 8
			code = code<<8 | uint32(in[ip])
			ip++
		}
		bound := rng >> probBits * p
		zero := uint32(0)
		less := code - bound
		rng -= bound
		if code < bound {
			next = low
			zero = 1
			rng = bound
			less = code
		}
		code = less
		tree[symbol] = uint16(p - uint32(int32(p-(probMax-31)&-zero)>>probMove))
		symbol = 2*symbol + 1 - zero
		p = next
	}
	return symbol & (literalTop - 1), rng, code, ip
}

// matchedLiteral decodes a byte behind a match. As long as its bits are those of
// the byte that the match would have had here, they have probabilities apart.
func matchedLiteral(tree *literalTree, matched uint32, in *inputBuffer, rng, code uint32, ip int) (symbol, rng2, code2 uint32, ip2 int) {
	symbol = 1
	offset := uint32(literalMatched)
	for symbol < literalTop {
		matched <<= 1
		bit := matched & offset
		prob := &tree[offset+bit+symbol]
		p := uint32(*prob)
		offset ^= bit
		if rng < rangeTop {
			rng <<= 8
			code = code<<8 | uint32(in[ip])
			ip++
		}
		bound := rng >> probBits * p
		zero := uint32(0)
		less := code - bound
		rng -= bound
		if code < bound {
			zero = 1
			rng = bound
			less = code
			bit = offset
		}
		code = less
		*prob = uint16(p - uint32(int32(p-(probMax-31)&-zero)>>probMove))
		symbol = 2*symbol + 1 - zero
		offset = bit
	}
	return symbol & (literalTop - 1), rng, code, ip
}
