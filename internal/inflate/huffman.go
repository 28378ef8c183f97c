package inflate

import "math/bits"

// Sizes of the codes (source: RFC 1951, section 3.2).
const (
	maxCodeLen = 15
	maxLits    = 286 // that a block may define
	maxDists   = 30
	fixedLits  = 288 // the fixed code has two that mean nothing
	fixedDists = 32
	numLens    = 19
	endOfBlock = 256
)

// Index bits of the first tables. Longer codes lead to a second one.
const (
	litBits  = 11
	distBits = 9
	lenBits  = 7 // all of a code of code lengths
)

// Entries of the tables, powers of two so that a masked index needs no check.
// The rest behind the first table is enough: a second table of s bits holds at
// least s+1 codes. So the 288 codes fill at most 57 tables of 4 bits and one of
// 2, and 32 distance codes 4 tables of 6 bits and one of 3.
const (
	litSize  = 4096
	distSize = 1024
	lenSize  = 1 << lenBits
)

// An entry of a table packs what a code means into 32 bits.
//
//	literals   entryLiteral; 28-29 how many, 1 or 2; 12-19 the first, 20-27 the
//	           second; 8-11 bits of the first code; 0-5 of both
//	length     16-24 base; 8-11 bits of the code; 0-5 with its extra bits
//	distance   16-30 base; the rest as for a length
//	other      litOther or distOther, and one of
//	  link     otherLink; 16-27 start of the second table; 8-11 its index
//	           bits; 0-5 index bits of the first table
//	  end      otherEnd; 8-11 and 0-5 bits of the code
//	  no code  nothing
//
// In a second table, the bits are those that follow the first index.
const (
	entryLiteral = 1 << 31
	litOther     = 1 << 30
	distOther    = 1 << 31
	otherLink    = 1 << 29
	otherEnd     = 1 << 28

	countShift  = 28
	firstShift  = 12
	secondShift = 20
	valueShift  = 16
	codeShift   = 8

	countMask = 1<<2 - 1
	linkMask  = 1<<12 - 1
	codeMask  = 1<<4 - 1
	bitsMask  = 1<<6 - 1
)

// litTable decodes literals, lengths and the end of a block.
type litTable [litSize]uint32

// distTable decodes distances.
type distTable [distSize]uint32

// code is a canonical Huffman code: its symbols by length, and within a length
// by value.
type code struct {
	count    [maxCodeLen + 1]int // symbols of each length
	start    [maxCodeLen + 1]int // the first one's index
	symbol   [fixedLits]uint16
	reversed [fixedLits]uint16 // the code, first bit lowest
	max      int               // length of the longest
}

// set makes c the code that gives each symbol as many bits as lengths says, 0
// for no code. It reports whether there is one: the lengths must be neither
// over-subscribed nor incomplete, but if lone is set there may be no code or one
// of one bit (source: zlib, inftrees.c).
func (c *code) set(lengths []uint8, lone bool) bool {
	c.count = [maxCodeLen + 1]int{}
	for _, n := range lengths {
		c.count[n&codeMask]++
	}
	c.count[0] = 0
	c.max = 0
	left, next := 1, 0
	for n := 1; n <= maxCodeLen; n++ {
		if left = left<<1 - c.count[n]; left < 0 {
			return false
		}
		if c.count[n] > 0 {
			c.max = n
		}
		c.start[n] = next
		next += c.count[n]
	}
	if left > 0 && (!lone || c.max > 1) {
		return false
	}
	at := c.start
	for sym, n := range lengths {
		if n &= codeMask; n > 0 {
			c.symbol[at[n]] = uint16(sym)
			at[n]++
		}
	}
	reversed := uint(0)
	i := 0
	for n := 1; n <= c.max; n++ {
		for range c.count[n] {
			c.reversed[i] = uint16(reversed)
			reversed = increment(reversed, n)
			i++
		}
	}
	return true
}

// increment returns the code that follows a reversed code of n bits. The bits
// that it gains with the next length are zero.
func increment(reversed uint, n int) uint {
	zeros := reversed ^ (1<<n - 1)
	if zeros == 0 {
		return 0 // it was the last one
	}
	top := uint(1) << (bits.Len(zeros) - 1)
	return reversed&(top-1) | top
}

// build fills table so that its index by the next index bits of the stream, and
// the link found there, lead to the entry of their symbol: that of entries plus
// the bits of its code; what is no code leads to other. The first table doubles
// with each bit of code length, so that a code is stored once and its copies in
// bulk.
func (c *code) build(table []uint32, index int, other uint32, entries []uint32, pairs bool) {
	table[0] = other
	i, size := 0, 1
	for n := 1; n <= index; n++ {
		copy(table[size:2*size], table[:size])
		size *= 2
		for range c.count[n] {
			table[c.reversed[i]] = entries[c.symbol[i]] + uint32(n)<<codeShift + uint32(n)
			i++
		}
		if pairs {
			c.buildPairs(table[:size], n)
		}
	}
	if c.max > index {
		c.buildLinks(table, index, other, entries)
	}
}

// buildPairs gives table, whose index has n bits, the entries of two literals
// with codes of n bits together.
func (c *code) buildPairs(table []uint32, n int) {
	for n1 := 1; n1 < n; n1++ {
		n2 := n - n1
		if c.count[n1] == 0 || c.count[n2] == 0 {
			continue
		}
		seconds := c.symbol[c.start[n2]:][:c.count[n2]]
		reversed := c.reversed[c.start[n2]:][:c.count[n2]]
		for i := c.start[n1]; i < c.start[n1]+c.count[n1] && c.symbol[i] < endOfBlock; i++ {
			e := entryLiteral + 2<<countShift + uint32(c.symbol[i])<<firstShift + uint32(n1)<<codeShift + uint32(n)
			for j, second := range seconds {
				if second >= endOfBlock {
					break
				}
				table[c.reversed[i]|reversed[j]<<n1] = e + uint32(second)<<secondShift
			}
		}
	}
}

// buildLinks adds the second tables, for the codes longer than index.
func (c *code) buildLinks(table []uint32, index int, other uint32, entries []uint32) {
	prefix, have := 0, false
	size, start, sub := 1<<index, 0, 0
	for n := index + 1; n <= c.max; n++ {
		for i := range c.count[n] {
			at := c.start[n] + i
			reversed := int(c.reversed[at])
			if p := reversed & (1<<index - 1); !have || p != prefix {
				prefix, have = p, true
				// As many bits as it takes until codes fill the table.
				sub = n - index
				for used := c.count[n] - i; used < 1<<sub; {
					sub++
					used = used<<1 + c.count[index+sub]
				}
				start = size
				size += 1 << sub
				table[prefix] = other | otherLink | uint32(start)<<valueShift | uint32(sub)<<codeShift | uint32(index)
			}
			own := uint32(n - index)
			e := entries[c.symbol[at]] + own<<codeShift + own
			for j := start + reversed>>index; j < size; j += 1 << own {
				table[j] = e
			}
		}
	}
}

// symbolEntries returns the entries of all literal and length codes and of all
// distance codes, without the bits of the codes (source: RFC 1951, 3.2.5).
func symbolEntries(lits *[fixedLits]uint32, dists *[fixedDists]uint32) {
	for i := range lits {
		switch {
		case i < endOfBlock:
			lits[i] = entryLiteral | 1<<countShift | uint32(i)<<firstShift
		case i == endOfBlock:
			lits[i] = litOther | otherEnd
		default:
			lits[i] = litOther
		}
	}
	base, extra := uint32(3), uint32(0)
	for i := range uint32(28) { // 257 to 284
		if i >= 8 && i%4 == 0 {
			extra++
		}
		lits[257+i] = base<<valueShift + extra
		base += 1 << extra
	}
	lits[285] = 258 << valueShift
	base, extra = 1, 0
	for i := range uint32(fixedDists) {
		if i >= 4 && i%2 == 0 {
			extra++
		}
		if i >= maxDists {
			dists[i] = distOther
			continue
		}
		dists[i] = base<<valueShift + extra
		base += 1 << extra
	}
}
