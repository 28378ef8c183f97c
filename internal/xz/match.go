package xz

// Lengths (source: LZMA specification, "Length Decoder").
const (
	minMatch     = 2
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
// distance in d.distances[0] and returns the length and the next state.
func (d *lzma) match(in *inputBuffer, c rangeCoder, state, posState uint32) (int, uint32, rangeCoder) {
	state &= stateMask
	after := uint32(0) // a match behind a match has states of its own
	if state >= literalStates {
		after = 3
	}
	var isRep, isOther, isLong bool
	var n uint32
	if isRep, c = c.bit(in, &d.isRep[state]); !isRep {
		d.distances[3], d.distances[2], d.distances[1] = d.distances[2], d.distances[1], d.distances[0]
		n, c = c.length(in, &d.matchLen, posState)
		d.distances[0], c = d.distance(in, c, min(n-minMatch, lengthStates-1))
		return int(n), 7 + after, c
	}
	if isOther, c = c.bit(in, &d.isRep0[state]); isOther {
		c = d.earlier(in, c, state)
	} else if isLong, c = c.bit(in, &d.isRep0Long[state][posState&posStateMask]); !isLong {
		return 1, min(9+after, states-1), c
	}
	n, c = c.length(in, &d.repLen, posState)
	return int(n), 8 + after, c
}

// earlier decodes which distance but the latest comes again, and moves it to the
// front.
func (d *lzma) earlier(in *inputBuffer, c rangeCoder, state uint32) rangeCoder {
	again := d.distances[1]
	var third, fourth bool
	if third, c = c.bit(in, &d.isRep1[state&stateMask]); third {
		again = d.distances[2]
		if fourth, c = c.bit(in, &d.isRep2[state&stateMask]); fourth {
			again = d.distances[3]
			d.distances[3] = d.distances[2]
		}
		d.distances[2] = d.distances[1]
	}
	d.distances[1], d.distances[0] = d.distances[0], again
	return c
}

// length decodes a length.
func (c rangeCoder) length(in *inputBuffer, l *lengthCoder, posState uint32) (n uint32, _ rangeCoder) {
	var more bool
	if more, c = c.bit(in, &l.choice); !more {
		n, c = c.tree(in, l.low[posState&posStateMask][:])
		return minMatch + n, c
	}
	if more, c = c.bit(in, &l.choice2); !more {
		n, c = c.tree(in, l.mid[posState&posStateMask][:])
		return minMatch + lengthLow + n, c
	}
	n, c = c.tree(in, l.high[:])
	return minMatch + 2*lengthLow + n, c
}

// distance decodes a distance, less one.
func (d *lzma) distance(in *inputBuffer, c rangeCoder, lengthState uint32) (uint32, rangeCoder) {
	slot, c := c.tree(in, d.slots[lengthState&(lengthStates-1)][:])
	if slot < firstExtra {
		return slot, c
	}
	bits := slot>>1 - 1
	dist := (2 | slot&1) << bits
	var low uint32
	if slot < firstDirect {
		low, c = c.reverseTree(in, d.special[dist-slot:], bits)
		return dist + low, c
	}
	high, c := c.direct(in, bits-alignBits)
	low, c = c.reverseTree(in, d.align[:], alignBits)
	return dist + high<<alignBits + low, c
}
