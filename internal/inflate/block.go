package inflate

// Types of a block (source: RFC 1951, section 3.2.3).
const (
	blockStored = iota
	blockFixed
	blockDynamic
)

// Symbols of the code of code lengths that repeat one (source: RFC 1951,
// section 3.2.7).
const (
	lenRepeat    = 16 // the last one 3 to 6 times
	lenZeros     = 17 // zero 3 to 10 times
	lenManyZeros = 18 // zero 11 to 138 times
)

// lenOrder returns the symbols in the order in which a block sends the lengths
// of their codes.
func lenOrder() [numLens]uint8 {
	return [numLens]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
}

// readBlock reads the header of a block.
func (z *Reader) readBlock() error {
	head, err := z.take(3)
	if err != nil {
		return err
	}
	z.final = head&1 != 0
	switch head >> 1 {
	case blockStored:
		return z.readStored()
	case blockFixed:
		z.useFixed()
	case blockDynamic:
		if err := z.readCodes(); err != nil {
			return err
		}
		z.lits, z.dists = &z.ownLits, &z.ownDists
	default:
		return z.fault("unknown type of block")
	}
	z.state = stateCoded
	return nil
}

// endBlock goes on behind a block.
func (z *Reader) endBlock() {
	z.state = stateBlock
	if z.final {
		z.state = stateTrailer
	}
}

func (z *Reader) readStored() error {
	z.align()
	size, err := z.take(16)
	if err != nil {
		return err
	}
	check, err := z.take(16)
	if err != nil {
		return err
	}
	if size != check^0xffff {
		return z.fault("length of a stored block is not what its complement says")
	}
	z.align()
	z.length, z.state = size, stateStored
	if size == 0 {
		z.endBlock()
	}
	return nil
}

// copyStored copies what is there of a stored block and fits into room, which
// is at pos. It returns the new one.
func (z *Reader) copyStored(room []byte, pos int) (int, error) {
	if z.ip == z.end {
		return pos, z.cut()
	}
	n := copy(room, z.in[z.ip:min(z.end, z.ip+z.length)])
	z.ip += n
	if z.length -= n; z.length == 0 {
		z.endBlock()
	}
	return pos + n, nil
}

// useFixed chooses the fixed codes and makes them at their first use (source:
// RFC 1951, section 3.2.6).
func (z *Reader) useFixed() {
	z.lits, z.dists = &z.fixedLits, &z.fixedDists
	if z.fixed {
		return
	}
	lits, dists := z.lengths[:fixedLits], z.lengths[fixedLits:]
	for i := range lits {
		switch {
		case i < 144:
			lits[i] = 8
		case i < 256:
			lits[i] = 9
		case i < 280:
			lits[i] = 7
		default:
			lits[i] = 8
		}
	}
	for i := range dists {
		dists[i] = 5
	}
	if !z.setCodes(lits, dists, &z.fixedLits, &z.fixedDists) {
		panic("inflate: internal error: the fixed codes are none")
	}
	z.fixed = true
}

// setCodes makes the tables for codes of the given lengths, if they are codes.
func (z *Reader) setCodes(lits, dists []uint8, litTable *litTable, distTable *distTable) bool {
	if !z.code.set(lits, true) {
		return false
	}
	z.code.build(litTable[:], litBits, litOther, z.litEntry[:], true)
	if !z.code.set(dists, true) {
		return false
	}
	z.code.build(distTable[:], distBits, distOther, z.distEntry[:], false)
	return true
}

// readCodes reads the codes of a dynamic block.
func (z *Reader) readCodes() error {
	head, err := z.take(14)
	if err != nil {
		return err
	}
	lits, dists, lens := head&31+257, head>>5&31+1, head>>10+4
	if lits > maxLits || dists > maxDists {
		return z.fault("more codes than there are symbols")
	}
	clear(z.lengths[:numLens])
	order := lenOrder()
	for _, sym := range order[:lens] {
		n, err := z.take(3)
		if err != nil {
			return err
		}
		z.lengths[sym] = uint8(n)
	}
	if !z.code.set(z.lengths[:numLens], false) {
		return z.fault("code of code lengths is over-subscribed or incomplete")
	}
	z.code.build(z.lens[:], lenBits, 0, z.lenEntry[:], false)
	if err := z.readLengths(z.lengths[:lits+dists]); err != nil {
		return err
	}
	if z.lengths[endOfBlock] == 0 {
		return z.fault("end of block has no code")
	}
	if !z.setCodes(z.lengths[:lits], z.lengths[lits:lits+dists], &z.ownLits, &z.ownDists) {
		return z.fault("code is over-subscribed or incomplete")
	}
	return nil
}

// readLengths reads code lengths, which may repeat across the border of the two
// codes.
func (z *Reader) readLengths(lengths []uint8) error {
	for i := 0; i < len(lengths); {
		if z.bitCount < lenBits+7 {
			if z.end-z.ip < minInput && z.readErr == nil {
				z.more()
			}
			z.refill()
		}
		e := z.lens[z.bitBuf&(lenSize-1)]
		if uint(e&bitsMask) > z.bitCount {
			return z.cut()
		}
		z.drop(uint(e & bitsMask))
		sym := e >> valueShift
		if sym < lenRepeat {
			lengths[i] = uint8(sym)
			i++
			continue
		}
		value, least, extra := uint8(0), 3, uint(3)
		switch sym {
		case lenRepeat:
			if i == 0 {
				return z.fault("first code length repeats none")
			}
			value, extra = lengths[i-1], 2
		case lenManyZeros:
			least, extra = 11, 7
		}
		n, err := z.take(extra)
		if err != nil {
			return err
		}
		if n += least; n > len(lengths)-i {
			return z.fault("more code lengths than codes")
		}
		for range n {
			lengths[i] = value
			i++
		}
	}
	return nil
}
