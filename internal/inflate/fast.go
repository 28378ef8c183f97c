package inflate

import "encoding/binary"

// What an iteration of decodeFast may need.
const (
	fastInput  = 3 * 8              // two refills of 8 bytes, the first moves by 7
	fastOutput = 3*2 + 258 + 2*16 // literals, a match, and what copying it overshoots
)

// status is why decodeFast stopped.
type status int

const (
	statusMore   status = iota // input or output get short
	statusEnd                  // the block has ended
	statusNoCode               // bits that are no code
	statusTooFar               // a match from before base
)

// decodeFast decodes symbols of a coded block until at most fastInput bytes of
// input or fastOutput bytes of room are left, or something other than bytes and
// matches comes.
//
// The bit buffer holds at least 56 bits after a refill. Three looks into the
// first table take 33 of them, a length 20 at most: it fits after two looks. A
// distance has 28.
func (z *Reader) decodeFast(buf []byte, pos, base int) (int, status) {
	lits, dists, in := z.lits, z.dists, &z.in
	bb, bn, ip := z.bitBuf, uint64(z.bitCount), uint(z.ip)
	inEnd := uint(min(z.end, len(in)) - fastInput)
	outEnd := len(buf) - fastOutput
	end := statusMore
loop:
	for ip <= inEnd && pos <= outEnd {
		bb |= binary.LittleEndian.Uint64(in[ip:]) << (bn & 63)
		ip += uint(63-bn&63) >> 3
		bn |= 56
		e := lits[bb&(1<<litBits-1)]
		if int32(e) < 0 {
			binary.LittleEndian.PutUint16(buf[pos:], uint16(e>>firstShift))
			pos += int(e >> countShift & countMask)
			bb >>= e & bitsMask
			bn -= uint64(e)
			e = lits[bb&(1<<litBits-1)]
			if int32(e) < 0 {
				binary.LittleEndian.PutUint16(buf[pos:], uint16(e>>firstShift))
				pos += int(e >> countShift & countMask)
				bb >>= e & bitsMask
				bn -= uint64(e)
				e = lits[bb&(1<<litBits-1)]
				if int32(e) < 0 {
					binary.LittleEndian.PutUint16(buf[pos:], uint16(e>>firstShift))
					pos += int(e >> countShift & countMask)
					bb >>= e & bitsMask
					bn -= uint64(e)
					continue
				}
			}
		}
		if e&litOther != 0 {
			if e&otherLink != 0 {
				bb >>= litBits
				bn -= litBits
				e = lits[link(e, bb)&(litSize-1)]
			}
			if int32(e) < 0 {
				buf[pos] = byte(e >> firstShift)
				pos++
				bb >>= e & bitsMask
				bn -= uint64(e)
				continue
			}
			if e&litOther != 0 {
				end = statusNoCode
				if e&otherEnd != 0 {
					bb >>= e & bitsMask
					bn -= uint64(e)
					end = statusEnd
				}
				break loop
			}
		}
		length := int(e>>valueShift) + int(bb&(1<<(e&bitsMask)-1)>>(e>>codeShift&codeMask))
		bb >>= e & bitsMask
		bn -= uint64(e)

		bb |= binary.LittleEndian.Uint64(in[ip:]) << (bn & 63)
		ip += uint(63-bn&63) >> 3
		bn |= 56
		d := dists[bb&(1<<distBits-1)]
		if int32(d) < 0 {
			if d&otherLink != 0 {
				bb >>= distBits
				bn -= distBits
				d = dists[link(d, bb)&(distSize-1)]
			}
			if int32(d) < 0 {
				end = statusNoCode
				break loop
			}
		}
		distance := int(d>>valueShift) + int(bb&(1<<(d&bitsMask)-1)>>(d>>codeShift&codeMask))
		bb >>= d & bitsMask
		bn -= uint64(d)
		if distance > pos-base {
			end = statusTooFar
			break loop
		}
		matchEnd := pos + length
		src := pos - distance
		switch {
		case distance >= 8:
			for {
				binary.LittleEndian.PutUint64(buf[pos:], binary.LittleEndian.Uint64(buf[src:]))
				pos += 8
				src += 8
				if pos >= matchEnd {
					break
				}
			}
		case distance == 1:
			v := uint64(buf[src]) * 0x0101010101010101
			for pos < matchEnd {
				binary.LittleEndian.PutUint64(buf[pos:], v)
				pos += 8
			}
		default:
			for pos < matchEnd {
				buf[pos] = buf[src]
				pos++
				src++
			}
		}
		pos = matchEnd
	}
	z.bitBuf, z.bitCount, z.ip = bb, uint(bn&63), int(ip)
	z.unread()
	return pos, end
}
