package xz

import (
	"encoding/binary"
	"math/bits"
)

// newBCJ returns a filter that turns the absolute addresses in branches of a
// machine's code back into relative ones, and the alignment of its
// instructions. It returns nil for an unknown one.
// (source: XZ Embedded, xz_dec_bcj.c; XZ Utils 5.4, simple/arm64.c)
func newBCJ(id uint64) (undo func(buf []byte, pos uint32) int, alignment uint32) {
	switch id {
	case filterX86:
		return new(x86).undo, 1
	case filterPowerPC:
		return words(binary.BigEndian, powerPC), 4
	case filterIA64:
		return ia64, 16
	case filterARM:
		return words(binary.LittleEndian, arm), 4
	case filterARMThumb:
		return armThumb, 2
	case filterSPARC:
		return words(binary.BigEndian, sparc), 4
	case filterARM64:
		return words(binary.LittleEndian, arm64), 4
	}
	return nil, 1
}

// words makes a filter of a function that changes one instruction of 32 bits.
func words(order binary.ByteOrder, undo func(instr, pos uint32) uint32) func(buf []byte, pos uint32) int {
	return func(buf []byte, pos uint32) int {
		n := len(buf) &^ 3
		for i := 0; i < n; i += 4 {
			word := buf[i : i+4]
			order.PutUint32(word, undo(order.Uint32(word), pos+uint32(i)))
		}
		return n
	}
}

// powerPC changes bl.
func powerPC(instr, pos uint32) uint32 {
	if instr&0xfc000003 != 0x48000001 {
		return instr
	}
	return 0x48000001 | (instr-pos)&0x03fffffc
}

// arm changes bl that is always taken. Its address is relative to the second
// instruction after it.
func arm(instr, pos uint32) uint32 {
	if instr>>24 != 0xeb {
		return instr
	}
	return 0xeb000000 | (instr-(pos+8)/4)&0x00ffffff
}

// arm64 changes bl, and adrp within 512 MiB.
func arm64(instr, pos uint32) uint32 {
	switch {
	case instr>>26 == 0x25:
		return 0x94000000 | (instr-pos/4)&0x03ffffff
	case instr&0x9f000000 == 0x90000000:
		page := instr>>29&3 | instr>>3&0x001ffffc
		if (page+0x00020000)&0x001c0000 != 0 {
			return instr
		}
		page -= pos >> 12
		return instr&0x9000001f | page&3<<29 | page&0x0003fffc<<3 | -(page&0x00020000)&0x00e00000
	}
	return instr
}

// sparc changes call with an address of 23 bits, sign included.
func sparc(instr, pos uint32) uint32 {
	if instr>>22 != 0x100 && instr>>22 != 0x1ff {
		return instr
	}
	address := instr - pos/4
	return (0x40000000 - address&0x00400000) | 0x40000000 | address&0x003fffff
}

// armThumb changes bl, a pair of half-words.
func armThumb(buf []byte, pos uint32) int {
	i := 0
	for ; i+4 <= len(buf); i += 2 {
		high := uint32(binary.LittleEndian.Uint16(buf[i:]))
		low := uint32(binary.LittleEndian.Uint16(buf[i+2:]))
		if high>>11 != 0x1e || low>>11 != 0x1f {
			continue
		}
		address := high&0x7ff<<11 | low&0x7ff
		address -= (pos + uint32(i) + 4) / 2
		binary.LittleEndian.PutUint16(buf[i:], uint16(0xf000|address>>11&0x7ff))
		binary.LittleEndian.PutUint16(buf[i+2:], uint16(0xf800|address&0x7ff))
		i += 2
	}
	return i
}

// ia64Branches has bit i set if instruction i of a bundle is a branch.
const ia64Branches = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x04\x04\x06\x06\x00\x00\x07\x07\x04\x04\x00\x00\x04\x04\x00\x00"

// ia64 changes br.call in bundles of three instructions of 41 bits. The template,
// the lowest five bits of a bundle, says which of them are branches.
func ia64(buf []byte, pos uint32) int {
	n := len(buf) &^ 15
	for i := 0; i < n; i += 16 {
		bundle := buf[i : i+16]
		branches := ia64Branches[bundle[0]&31]
		for slot := range 3 {
			if branches>>slot&1 == 0 {
				continue
			}
			at := 5 + 41*slot
			six := bundle[at/8:][:6]
			raw := uint64(binary.LittleEndian.Uint32(six)) | uint64(binary.LittleEndian.Uint16(six[4:]))<<32
			shift := at % 8
			instr := raw >> shift
			if instr>>37&15 != 5 || instr>>9&7 != 0 {
				continue
			}
			address := uint32(instr>>13&0xfffff | instr>>36&1<<20)
			address -= (pos + uint32(i)) >> 4
			instr &^= 0x8fffff << 13
			instr |= uint64(address&0xfffff)<<13 | uint64(address&0x100000)<<16
			raw = raw&(1<<shift-1) | instr<<shift
			binary.LittleEndian.PutUint32(six, uint32(raw))
			binary.LittleEndian.PutUint16(six[4:], uint16(raw>>32))
		}
	}
	return n
}

// x86 changes call and jmp with a displacement of 32 bits. What looks like an
// opcode may be part of a displacement: the encoder leaves it alone if another
// one was left alone shortly before, and the bytes between do not rule it out.
type x86 struct {
	recent uint32 // bit i is set if an opcode i+1 bytes before was left alone
}

func (x *x86) undo(buf []byte, pos uint32) int {
	i := 0
	for i+5 <= len(buf) {
		recent := x.recent & 7
		x.recent = recent << 1
		if buf[i]&0xfe != 0xe8 {
			i++
			continue
		}
		top := bits.Len32(recent)
		if recent&(recent-1) != 0 || recent != 0 && isSign(buf[i+4-top]) || !isSign(buf[i+4]) {
			x.recent |= 1
			i++
			continue
		}
		displacement := buf[i+1 : i+5]
		here := pos + uint32(i) + 5
		value := binary.LittleEndian.Uint32(displacement) - here
		// The encoder did not let the byte it looks at become a sign; a second
		// round always ends it.
		for n := 0; recent != 0 && isSign(byte(value>>(24-8*top))) && n < 4; n++ {
			value = value ^ (1<<(32-8*top) - 1) - here
		}
		value &= 0x01ffffff
		value |= -(value & 0x01000000)
		binary.LittleEndian.PutUint32(displacement, value)
		x.recent = 0
		i += 5
	}
	return i
}

// isSign reports whether b is the highest byte of a displacement that is not
// too long.
func isSign(b byte) bool { return b == 0 || b == 0xff }
