package inflate

// decodeCoded decodes symbols of a coded block: many, where input and output
// allow, else one. A match may reach back to base.
func (z *Reader) decodeCoded(buf *buffer, pos, stop, base int) (int, error) {
	if z.end-z.ip >= fastInput && stop-pos >= fastOutput {
		var why status
		pos, why = z.decodeFast(buf, pos, stop, base)
		switch why {
		case statusMore:
		case statusEnd:
			z.endBlock()
		case statusNoCode:
			return pos, z.fault(reasonNoCode)
		case statusTooFar:
			return pos, z.fault(reasonTooFar)
		}
		return pos, nil
	}
	return z.decodeOne(buf, pos, base)
}

const (
	reasonNoCode = "bits that are no code"
	reasonTooFar = "match reaches back before the beginning"
)

// decodeOne decodes one symbol. There is room for one byte of output.
func (z *Reader) decodeOne(buf *buffer, pos, base int) (int, error) {
	z.refill()
	e := z.lits[z.bitBuf&(1<<litBits-1)]
	if e&(entryLiteral|litOther|otherLink) == litOther|otherLink {
		if z.bitCount < litBits {
			return pos, z.cut()
		}
		z.drop(litBits)
		e = z.lits[link(e, z.bitBuf)&(litSize-1)]
	}
	switch {
	case e&entryLiteral != 0: // only the first of two
		n := uint(e >> codeShift & codeMask)
		if n > z.bitCount {
			return pos, z.cut()
		}
		z.drop(n)
		buf[pos] = byte(e >> firstShift)
		return pos + 1, nil
	case e&litOther != 0:
		// Bits behind the end look like zeros, which may be no code.
		n := uint(e & bitsMask)
		if n > z.bitCount || e&otherEnd == 0 && z.atEnd() {
			return pos, z.cut()
		}
		if e&otherEnd == 0 {
			return pos, z.fault(reasonNoCode)
		}
		z.drop(n)
		z.endBlock()
		return pos, nil
	}
	var ok bool
	if z.length, ok = z.value(e); !ok {
		return pos, z.cut()
	}
	e = z.dists[z.bitBuf&(1<<distBits-1)]
	if e&(distOther|otherLink) == distOther|otherLink {
		if z.bitCount < distBits {
			return pos, z.cut()
		}
		z.drop(distBits)
		e = z.dists[link(e, z.bitBuf)&(distSize-1)]
	}
	if e&distOther != 0 {
		if z.atEnd() {
			return pos, z.cut()
		}
		return pos, z.fault(reasonNoCode)
	}
	if z.distance, ok = z.value(e); !ok {
		return pos, z.cut()
	}
	if z.distance > pos-base {
		return pos, z.fault(reasonTooFar)
	}
	z.state = stateMatch
	return pos, nil
}

// atEnd reports whether less bits are left than the longest code has.
func (z *Reader) atEnd() bool { return z.bitCount < maxCodeLen }

// link returns the index of the entry in the second table that e leads to.
func link(e uint32, bits uint64) uint64 {
	return uint64(e>>valueShift&linkMask) + bits&(1<<(e>>codeShift&codeMask)-1)
}

// value drops the bits of a length or distance and returns it, if there are
// enough.
func (z *Reader) value(e uint32) (int, bool) {
	n := uint(e & bitsMask)
	if n > z.bitCount {
		return 0, false
	}
	extra := z.bitBuf & (1<<n - 1) >> (e >> codeShift & codeMask)
	z.drop(n)
	return int(e>>valueShift) + int(extra), true
}

// copyMatch copies what fits before end of the match that has begun.
func (z *Reader) copyMatch(buf *buffer, pos, end int) int {
	for z.length > 0 && pos < end {
		buf[pos] = buf[pos-z.distance]
		pos++
		z.length--
	}
	if z.length == 0 {
		z.state = stateCoded
	}
	return pos
}
