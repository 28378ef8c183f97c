package xz

// The range coder (source: LZMA specification, "Range Decoder"). A probability is
// that of a 0, in 1/2048.
const (
	probBits  = 11
	probMax   = 1 << probBits
	probHalf  = probMax / 2
	probMove  = 5
	probRound = 1<<probMove - 1
	rangeTop  = 1 << 24
)

// rangeCoder decodes bits. It is small and is passed by value, so that it stays
// in registers. Except for bit, its methods must not branch on what they decode:
// the processor would guess wrong half of the time, and a wrong guess takes
// longer than several bits. So they are written for the compiler to select
// values instead, which it does if there is nothing but assignments of ready
// values behind the if. A selected zero then adjusts the probability: it moves
// by 1/32 of the way to 2048 for a 0 and to 0 for a 1, rounded as in the
// specification.
//
// Each is written out: as a function, a step of theirs is too large to be inlined.
type rangeCoder struct {
	rng, code uint32
	pos       int // in the input buffer
}

// bit decodes a bit that decides what comes next. It is small enough to be
// inlined, and should remain so.
func (c rangeCoder) bit(in *inputBuffer, prob *uint16) (bool, rangeCoder) {
	if c.rng < rangeTop {
		c.rng <<= 8
		c.code = c.code<<8 | uint32(in[c.pos])
		c.pos++
	}
	bound := c.rng >> probBits * uint32(*prob)
	if c.code < bound {
		c.rng = bound
		*prob += (probMax - *prob) >> probMove
		return false, c
	}
	c.rng -= bound
	c.code -= bound
	*prob -= *prob >> probMove
	return true, c
}

// literal decodes a byte. The two candidates for the next probability are read
// before it is known which of them it is: the processor would wait for one.
func (c rangeCoder) literal(in *inputBuffer, tree *literalTree) (uint32, rangeCoder) {
	symbol, p := uint32(1), uint32(tree[1])
	for symbol < literalTop {
		low, next := uint32(tree[2*symbol]), uint32(tree[2*symbol+1])
		if c.rng < rangeTop {
			c.rng <<= 8
			c.code = c.code<<8 | uint32(in[c.pos])
			c.pos++
		}
		bound := c.rng >> probBits * p
		zero := uint32(0)
		code := c.code - bound
		c.rng -= bound
		if c.code < bound {
			zero = 1
			c.rng = bound
			code = c.code
			next = low
		}
		c.code = code
		tree[symbol] = uint16(p - uint32(int32(p-(probMax-probRound)&-zero)>>probMove))
		symbol = 2*symbol + 1 - zero
		p = next
	}
	return symbol & (literalTop - 1), c
}

// matchedLiteral decodes a byte behind a match. As long as its bits are those of
// the byte that the match would have had here, they have probabilities apart.
func (c rangeCoder) matchedLiteral(in *inputBuffer, tree *literalTree, matched uint32) (uint32, rangeCoder) {
	symbol, offset := uint32(1), uint32(literalMatched)
	for symbol < literalTop {
		matched <<= 1
		apart := matched & offset
		prob := &tree[offset+apart+symbol]
		p := uint32(*prob)
		if c.rng < rangeTop {
			c.rng <<= 8
			c.code = c.code<<8 | uint32(in[c.pos])
			c.pos++
		}
		bound := c.rng >> probBits * p
		zero := uint32(0)
		code := c.code - bound
		c.rng -= bound
		if c.code < bound {
			zero = 1
			c.rng = bound
			code = c.code
		}
		c.code = code
		*prob = uint16(p - uint32(int32(p-(probMax-probRound)&-zero)>>probMove))
		symbol = 2*symbol + 1 - zero
		offset = apart ^ offset&-zero // apart stays if the bit is that of matched
	}
	return symbol & (literalTop - 1), c
}

// tree decodes a number below len(probs), a power of two, highest bit first.
func (c rangeCoder) tree(in *inputBuffer, probs []uint16) (uint32, rangeCoder) {
	symbol := uint32(1)
	for symbol < uint32(len(probs)) {
		p := uint32(probs[symbol])
		if c.rng < rangeTop {
			c.rng <<= 8
			c.code = c.code<<8 | uint32(in[c.pos])
			c.pos++
		}
		bound := c.rng >> probBits * p
		zero := uint32(0)
		code := c.code - bound
		c.rng -= bound
		if c.code < bound {
			zero = 1
			c.rng = bound
			code = c.code
		}
		c.code = code
		probs[symbol] = uint16(p - uint32(int32(p-(probMax-probRound)&-zero)>>probMove))
		symbol = 2*symbol + 1 - zero
	}
	return symbol - uint32(len(probs)), c
}

// reverseTree decodes a number of the given bits, lowest bit first. Its probs
// begin at index 1.
func (c rangeCoder) reverseTree(in *inputBuffer, probs []uint16, bits uint32) (uint32, rangeCoder) {
	symbol, value := uint32(1), uint32(0)
	for one := uint32(1); one < 1<<bits; one <<= 1 {
		p := uint32(probs[symbol])
		if c.rng < rangeTop {
			c.rng <<= 8
			c.code = c.code<<8 | uint32(in[c.pos])
			c.pos++
		}
		bound := c.rng >> probBits * p
		zero := uint32(0)
		code := c.code - bound
		c.rng -= bound
		if c.code < bound {
			zero = 1
			c.rng = bound
			code = c.code
		}
		c.code = code
		probs[symbol] = uint16(p - uint32(int32(p-(probMax-probRound)&-zero)>>probMove))
		symbol = 2*symbol + 1 - zero
		value += one & (zero - 1)
	}
	return value, c
}

// direct decodes bits that are as likely 0 as 1.
func (c rangeCoder) direct(in *inputBuffer, bits uint32) (uint32, rangeCoder) {
	value := uint32(0)
	for ; bits > 0; bits-- {
		if c.rng < rangeTop {
			c.rng <<= 8
			c.code = c.code<<8 | uint32(in[c.pos])
			c.pos++
		}
		c.rng >>= 1
		c.code -= c.rng
		zero := uint32(int32(c.code) >> 31) // all ones if the bit is 0
		c.code += c.rng & zero
		value = value<<1 + 1 + zero
	}
	return value, c
}
