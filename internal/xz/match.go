package xz

// Lengths (source: LZMA specification, "Length Decoder").
const (
	minMatch     = 2
	maxMatch     = 273
	lengthLow    = 8 // lengths 2 to 9; as many in the middle; 256 above
	lengthHigh   = 256
	lengthStates = 4 // lengths 2, 3, 4 and more choose the distance's context
)

// Distances (source: LZMA specification, "Distance Decoder"). A slot is the two
// highest bits and how many follow.
const (
	slotCount   = 64
	firstExtra  = 4  // slots below are the distance itself
	firstDirect = 14 // from here on, all bits but the lowest four have no probability
	alignBits   = 4
	alignSize   = 1 << alignBits
	specialSize = 128 // 115 are used
)

// lengthCoder holds the probabilities of lengths.
type lengthCoder struct {
	choice, choice2 uint16
	low, mid        [maxPosStates][lengthLow]uint16
	high            [lengthHigh]uint16
}

func (l *lengthCoder) reset() {
	l.choice, l.choice2 = probHalf, probHalf
	for i := range l.low {
		fill(l.low[i][:])
		fill(l.mid[i][:])
	}
	fill(l.high[:])
}

// match decodes what follows the bit that says it is no literal. It leaves the
// distance in d.distances[0] and returns the length.
func (d *lzma) match(in *inputBuffer, posState uint32) int {
	state := d.state & stateMask
	after := uint32(0) // states after a literal come first
	if state >= literalStates {
		after = 3
	}
	if !d.bit(in, &d.isRep[state]) {
		d.distances[3], d.distances[2], d.distances[1] = d.distances[2], d.distances[1], d.distances[0]
		d.state = 7 + after
		n := d.length(in, &d.matchLen, posState)
		d.distances[0] = d.distance(in, min(n-minMatch, lengthStates-1))
		return int(n)
	}
	d.state = 8 + after
	if !d.bit(in, &d.isRep0[state]) {
		if !d.bit(in, &d.isRep0Long[state][posState&posStateMask]) {
			d.state = min(9+after, 11)
			return 1
		}
		return int(d.length(in, &d.repLen, posState))
	}
	latest := d.distances[1]
	if d.bit(in, &d.isRep1[state]) {
		latest = d.distances[2]
		if d.bit(in, &d.isRep2[state]) {
			latest = d.distances[3]
			d.distances[3] = d.distances[2]
		}
		d.distances[2] = d.distances[1]
	}
	d.distances[1], d.distances[0] = d.distances[0], latest
	return int(d.length(in, &d.repLen, posState))
}

// bit decodes a bit that decides what comes next.
func (d *lzma) bit(in *inputBuffer, prob *uint16) bool {
	if d.rng < rangeTop {
		d.rng <<= 8
		d.code = d.code<<8 | uint32(in[d.in])
		d.in++
	}
	p := uint32(*prob)
	bound := d.rng >> probBits * p
	if d.code < bound {
		d.rng = bound
		*prob = uint16(p + (probMax-p)>>probMove)
		return false
	}
	d.rng -= bound
	d.code -= bound
	*prob = uint16(p - p>>probMove)
	return true
}

// length decodes a length.
func (d *lzma) length(in *inputBuffer, l *lengthCoder, posState uint32) uint32 {
	if !d.bit(in, &l.choice) {
		return minMatch + d.tree(in, l.low[posState&posStateMask][:])
	}
	if !d.bit(in, &l.choice2) {
		return minMatch + lengthLow + d.tree(in, l.mid[posState&posStateMask][:])
	}
	return minMatch + 2*lengthLow + d.tree(in, l.high[:])
}

// distance decodes a distance, less one.
func (d *lzma) distance(in *inputBuffer, lengthState uint32) uint32 {
	slot := d.tree(in, d.slots[lengthState&(lengthStates-1)][:])
	if slot < firstExtra {
		return slot
	}
	bits := slot>>1 - 1
	dist := (2 | slot&1) << bits
	if slot < firstDirect {
		return dist + d.reverseTree(in, d.special[dist-slot:], bits)
	}
	dist += d.direct(in, bits-alignBits) << alignBits
	return dist + d.reverseTree(in, d.align[:], alignBits)
}

// tree decodes a number below len(probs), a power of two, highest bit first.
func (d *lzma) tree(in *inputBuffer, probs []uint16) uint32 {
	rng, code, ip := d.rng, d.code, d.in
	symbol := uint32(1)
	for symbol < uint32(len(probs)) {
		p := uint32(probs[symbol])
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
		}
		code = less
		probs[symbol] = uint16(p - uint32(int32(p-(probMax-31)&-zero)>>probMove))
		symbol = 2*symbol + 1 - zero
	}
	d.rng, d.code, d.in = rng, code, ip
	return symbol - uint32(len(probs))
}

// reverseTree decodes a number of the given bits, lowest bit first. Its probs
// begin at index 1.
func (d *lzma) reverseTree(in *inputBuffer, probs []uint16, bits uint32) uint32 {
	rng, code, ip := d.rng, d.code, d.in
	symbol, value := uint32(1), uint32(0)
	for one := uint32(1); one < 1<<bits; one <<= 1 {
		p := uint32(probs[symbol])
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
		}
		code = less
		probs[symbol] = uint16(p - uint32(int32(p-(probMax-31)&-zero)>>probMove))
		symbol = 2*symbol + 1 - zero
		value += one & (zero - 1)
	}
	d.rng, d.code, d.in = rng, code, ip
	return value
}

// direct decodes bits that are as likely 0 as 1.
func (d *lzma) direct(in *inputBuffer, bits uint32) uint32 {
	rng, code, ip := d.rng, d.code, d.in
	value := uint32(0)
	for ; bits > 0; bits-- {
		if rng < rangeTop {
			rng <<= 8
			code = code<<8 | uint32(in[ip])
			ip++
		}
		rng >>= 1
		code -= rng
		negative := uint32(int32(code) >> 31) // all ones if the bit is 0
		code += rng & negative
		value = value<<1 + 1 + negative
	}
	d.rng, d.code, d.in = rng, code, ip
	return value
}
