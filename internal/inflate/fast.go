package inflate

import "encoding/binary"

// What an iteration of decodeFast may need.
const (
	fastInput  = 3 * 8           // two refills of 8 bytes, the first moves by 7
	fastOutput = 3*2 + 258 + 2*8 // literals, a match, and what copying it overshoots
)

// strides holds, 4 bits for each distance below 8, the largest multiple of it up
// to 8.
const strides = 0x76586880

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
func (z *Reader) decodeFast(buf *buffer, start, stop, base int) (int, status) {
	lits, dists, in := z.lits, z.dists, &z.in
	bb, bn, ip := z.bitBuf, uint64(z.bitCount), uint(z.ip)
	inEnd := min(uint(z.end), uint(len(in))) - fastInput
	pos, outEnd := uint(start), uint(stop-fastOutput)
	end := statusMore
	for ip <= inEnd && ip < uint(len(in)-16) && pos <= outEnd && pos <= uint(len(buf)-fastOutput) {
		bb |= binary.LittleEndian.Uint64(in[ip:ip+8:ip+8]) << (bn & 63)
		ip += uint(63-bn&63) >> 3
		bn |= 56
		e := lits[bb&(1<<litBits-1)]
		if int32(e) < 0 {
			binary.LittleEndian.PutUint16(buf[pos:pos+2:pos+2], uint16(e>>firstShift))
			pos += uint(e >> countShift & countMask)
			bb, bn = bb>>(e&bitsMask), bn-uint64(e)
			e = lits[bb&(1<<litBits-1)]
			if int32(e) < 0 {
				binary.LittleEndian.PutUint16(buf[pos:pos+2:pos+2], uint16(e>>firstShift))
				pos += uint(e >> countShift & countMask)
				bb, bn = bb>>(e&bitsMask), bn-uint64(e)
				e = lits[bb&(1<<litBits-1)]
				if int32(e) < 0 {
					binary.LittleEndian.PutUint16(buf[pos:pos+2:pos+2], uint16(e>>firstShift))
					pos += uint(e >> countShift & countMask)
					bb, bn = bb>>(e&bitsMask), bn-uint64(e)
					continue
				}
			}
		}
		if e&litOther != 0 {
			if e&otherLink != 0 {
				bb, bn = bb>>litBits, bn-litBits
				e = lits[link(e, bb)&(litSize-1)]
			}
			if int32(e) < 0 {
				buf[pos] = byte(e >> firstShift)
				pos++
				bb, bn = bb>>(e&bitsMask), bn-uint64(e)
				continue
			}
			if e&litOther != 0 {
				end = statusNoCode
				if e&otherEnd != 0 {
					bb, bn = bb>>(e&bitsMask), bn-uint64(e)
					end = statusEnd
				}
				break
			}
		}
		length := uint(e>>valueShift) + uint(bb&(1<<(e&bitsMask)-1)>>(e>>codeShift&codeMask))
		bb, bn = bb>>(e&bitsMask), bn-uint64(e)

		bb |= binary.LittleEndian.Uint64(in[ip:ip+8:ip+8]) << (bn & 63)
		ip += uint(63-bn&63) >> 3
		bn |= 56
		d := dists[bb&(1<<distBits-1)]
		if int32(d) < 0 {
			if d&otherLink != 0 {
				bb, bn = bb>>distBits, bn-distBits
				d = dists[link(d, bb)&(distSize-1)]
			}
			if int32(d) < 0 {
				end = statusNoCode
				break
			}
		}
		distance := uint(d>>valueShift) + uint(bb&(1<<(d&bitsMask)-1)>>(d>>codeShift&codeMask))
		bb, bn = bb>>(d&bitsMask), bn-uint64(d)
		if distance > pos-uint(base) {
			end = statusTooFar
			break
		}
		copyFast(buf, pos, distance, length)
		pos += length
	}
	z.bitBuf, z.bitCount, z.ip = bb, uint(bn&63), int(ip)
	z.unread()
	return int(pos), end
}

// copyFast copies a match of decodeFast to pos. It writes up to 16 bytes behind
// it.
func copyFast(buf *buffer, pos, distance, length uint) {
	src, next := pos-distance, pos+length
	if distance >= 8 {
		// Most matches are short.
		binary.LittleEndian.PutUint64(buf[pos:pos+8:pos+8], binary.LittleEndian.Uint64(buf[src:src+8:src+8]))
		binary.LittleEndian.PutUint64(buf[pos+8:pos+16:pos+16], binary.LittleEndian.Uint64(buf[src+8:src+16:src+16]))
		for pos+16 < next {
			binary.LittleEndian.PutUint64(buf[pos+16:pos+24:pos+24], binary.LittleEndian.Uint64(buf[src+16:src+24:src+24]))
			pos += 8
			src += 8
		}
		return
	}
	// The bytes that repeat, as often as they fit into 8.
	v := binary.LittleEndian.Uint64(buf[src : src+8 : src+8])
	v &= 1<<(8*distance&63) - 1
	v |= v << (8 * distance)
	v |= v << (16 * distance)
	v |= v << (32 * distance)
	for step := uint(strides >> (4 * distance) & 15); pos < next; pos += step {
		binary.LittleEndian.PutUint64(buf[pos:pos+8:pos+8], v)
	}
}
