package inflate

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"math/rand/v2"
)

// encoder writes deflate streams bit by bit, with codes that no compressor
// chooses and faults that none makes.
type encoder struct {
	out   []byte
	acc   uint64
	count uint
	plain []byte // content so far
}

// bits writes the n low bits of v, the lowest first.
func (e *encoder) bits(v uint64, n uint) *encoder {
	e.acc |= v << e.count
	for e.count += n; e.count >= 8; e.count -= 8 {
		e.out = append(e.out, byte(e.acc))
		e.acc >>= 8
	}
	return e
}

// align fills the last byte with zeros.
func (e *encoder) align() *encoder {
	if e.count > 0 {
		e.bits(0, 8-e.count)
	}
	return e
}

// bytes writes whole bytes.
func (e *encoder) bytes(b ...byte) *encoder {
	e.align()
	e.out = append(e.out, b...)
	return e
}

// stored writes a stored block.
func (e *encoder) stored(final uint64, content string) *encoder {
	e.bits(final, 3).align()
	n := uint16(len(content))
	e.out = binary.LittleEndian.AppendUint16(e.out, n)
	e.out = binary.LittleEndian.AppendUint16(e.out, ^n)
	e.out = append(e.out, content...)
	e.plain = append(e.plain, content...)
	return e
}

// header writes a dynamic block's header for codes of the given lengths, sent
// one by one with a code of 4 bits for 0 to 15.
func (e *encoder) header(final uint64, lits, dists []uint8) *encoder {
	e.bits(final|blockDynamic<<1, 3)
	e.bits(uint64(len(lits)-257), 5).bits(uint64(len(dists)-1), 5).bits(numLens-4, 4)
	for _, sym := range lenOrder() {
		if sym < 16 {
			e.bits(4, 3)
		} else {
			e.bits(0, 3)
		}
	}
	for _, lengths := range [][]uint8{lits, dists} {
		for _, n := range lengths {
			e.bits(uint64(bits.Reverse8(n)>>4), 4)
		}
	}
	return e
}

// huffman is a code for an encoder.
type huffman struct {
	lengths []uint8
	codes   []uint64 // reversed
}

// canonical returns the code of the given lengths, in the straightforward way.
func canonical(lengths []uint8) *huffman {
	h := &huffman{lengths: lengths, codes: make([]uint64, len(lengths))}
	next := uint16(0)
	for n := uint8(1); n <= maxCodeLen; n++ {
		next <<= 1
		for sym, l := range lengths {
			if l == n {
				h.codes[sym] = uint64(bits.Reverse16(next) >> (16 - n))
				next++
			}
		}
	}
	return h
}

// fixedCodes returns the codes of fixed blocks.
func fixedCodes() (lits, dists *huffman) {
	l := make([]uint8, fixedLits)
	for i := range l {
		l[i] = 8
		if i >= 144 && i < 256 {
			l[i] = 9
		} else if i >= 256 && i < 280 {
			l[i] = 7
		}
	}
	d := make([]uint8, fixedDists)
	for i := range d {
		d[i] = 5
	}
	return canonical(l), canonical(d)
}

// symbol writes the code of a symbol.
func (e *encoder) symbol(h *huffman, sym int) *encoder {
	return e.bits(h.codes[sym], uint(h.lengths[sym]))
}

// literal writes a byte.
func (e *encoder) literal(h *huffman, b byte) *encoder {
	e.plain = append(e.plain, b)
	return e.symbol(h, int(b))
}

// match writes a match by the tables of the RFC, and by the codes that have one.
// It reports false if one has none.
func (e *encoder) match(lits, dists *huffman, length, distance int) bool {
	sym, extra, n := lengthSymbol(length)
	dsym, dextra, dn := distanceSymbol(distance)
	if sym >= len(lits.lengths) || lits.lengths[sym] == 0 || dsym >= len(dists.lengths) || dists.lengths[dsym] == 0 {
		return false
	}
	e.symbol(lits, sym).bits(uint64(extra), n)
	e.symbol(dists, dsym).bits(uint64(dextra), dn)
	for range length {
		if distance > len(e.plain) {
			return true // a fault on purpose
		}
		e.plain = append(e.plain, e.plain[len(e.plain)-distance])
	}
	return true
}

// lengthSymbol returns the symbol, the extra bits and their number.
func lengthSymbol(length int) (sym, extra int, n uint) {
	bases := [...]int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	i := len(bases) - 1
	for bases[i] > length {
		i--
	}
	if i >= 8 && i < 28 {
		n = uint(i/4 - 1)
	}
	return 257 + i, length - bases[i], n
}

// distanceSymbol is lengthSymbol for distances.
func distanceSymbol(distance int) (sym, extra int, n uint) {
	bases := [...]int{
		1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769,
		1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
	}
	i := len(bases) - 1
	for bases[i] > distance {
		i--
	}
	if i >= 4 {
		n = uint(i/2 - 1)
	}
	return i, distance - bases[i], n
}

// member wraps what has been written in a header and the right trailer.
func (e *encoder) member() []byte {
	e.align()
	b := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, e.out...)
	return append(b, trailer(e.plain)...)
}

// trailer returns the trailer of a member with this content.
func trailer(plain []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(plain))
	return binary.LittleEndian.AppendUint32(b, uint32(len(plain)))
}

// randomLengths returns the lengths of a complete code for some of n symbols,
// among them must, where long codes are as likely as short ones.
func randomLengths(rng *rand.Rand, n, must int) []uint8 {
	lengths := make([]uint8, n)
	want := 2 + rng.IntN(n-1)
	leaves := []uint8{1, 1}
	for len(leaves) < want {
		i := len(leaves) - 1 // the deepest, for long codes
		if rng.IntN(3) > 0 || leaves[i] >= maxCodeLen {
			i = rng.IntN(len(leaves))
		}
		if leaves[i] >= maxCodeLen {
			continue
		}
		leaves[i]++
		leaves = append(leaves, leaves[i])
	}
	order := rng.Perm(n)
	for i, length := range leaves {
		lengths[order[i]] = length
	}
	if lengths[must] == 0 {
		lengths[must], lengths[order[0]] = lengths[order[0]], 0
	}
	return lengths
}
