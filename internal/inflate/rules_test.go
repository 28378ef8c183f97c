package inflate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// lengthsOf returns n code lengths, those that are not in set 0.
func lengthsOf(n int, set map[int]uint8) []uint8 {
	l := make([]uint8, n)
	for sym, length := range set {
		l[sym] = length
	}
	return l
}

// deep returns code lengths of 1 to 14 bits for 0 to 13, and last for those from
// 14 on, but the last one is that of the end of block.
func deep(last ...uint8) []uint8 {
	l := make([]uint8, 257)
	for i := range 14 {
		l[i] = uint8(i + 1)
	}
	copy(l[14:], last[1:])
	l[endOfBlock] = last[0]
	return l
}

// TestBlockRules has a deflate stream for each rule of the format.
func TestBlockRules(t *testing.T) {
	t.Parallel()
	lits, dists := fixedCodes()
	fixed := func() *encoder { return new(encoder).bits(3, 3) }
	onlyEnd := lengthsOf(257, map[int]uint8{256: 1})
	aEnd := lengthsOf(257, map[int]uint8{'a': 1, 256: 1})
	aMatch := lengthsOf(258, map[int]uint8{'a': 1, 256: 2, 257: 2})
	dynamic := func(lits, dists []uint8, syms ...int) *encoder {
		e := new(encoder).header(1, lits, dists)
		h := canonical(lits)
		for _, sym := range syms {
			if sym < endOfBlock {
				e.plain = append(e.plain, byte(sym))
			}
			e.symbol(h, sym)
		}
		return e
	}
	tests := []struct {
		name string
		e    *encoder
		want string // "" for none, else the reason
	}{
		{"stored", new(encoder).stored(1, "abc"), ""},
		{"stored, empty", new(encoder).stored(0, "").stored(1, ""), ""},
		{"stored, largest", new(encoder).stored(1, strings.Repeat("x", 65535)), ""},
		{"stored, padding of ones", new(encoder).bits(0xf9, 8).bytes(0, 0, 0xff, 0xff), ""},
		{"stored, wrong complement", new(encoder).bits(1, 3).bytes(1, 0, 0xff, 0xff, 'x'), "complement"},
		{"unknown type", new(encoder).bits(7, 3), "unknown type"},
		{"fixed, empty", fixed().symbol(lits, 256), ""},
		{"fixed, largest match", matches(fixed().literal(lits, 'x'), lits, dists, 258, 1).symbol(lits, 256), ""},
		{"fixed, 258 by code 284", func() *encoder {
			e := fixed().literal(lits, 'x').symbol(lits, 284).bits(31, 5).symbol(dists, 0)
			e.plain = bytes.Repeat([]byte("x"), 259)
			return e.symbol(lits, 256)
		}(), ""},
		{"fixed, too far", matches(fixed().literal(lits, 'x'), lits, dists, 3, 2).symbol(lits, 256), "reaches back"},
		{"fixed, nothing before", matches(fixed(), lits, dists, 3, 1).symbol(lits, 256), "reaches back"},
		{"fixed, length code 286", fixed().symbol(lits, 286).bits(0, 64-16), "no code"},
		{"fixed, length code 287", fixed().symbol(lits, 287).bits(0, 64-16), "no code"},
		{"fixed, distance code 30", fixed().literal(lits, 'x').symbol(lits, 257).symbol(dists, 30).bits(0, 48), "no code"},
		{"fixed, distance code 31", fixed().literal(lits, 'x').symbol(lits, 257).symbol(dists, 31).bits(0, 48), "no code"},
		{"lone end of block", dynamic(onlyEnd, []uint8{0}, 256), ""},
		{"lone end of block, other bit", dynamic(onlyEnd, []uint8{0}).bits(1, 1).bits(0, 48), "no code"},
		{"lone code of two bits", dynamic(lengthsOf(257, map[int]uint8{256: 2}), []uint8{0}, 256), "incomplete"},
		{"no end of block", dynamic(lengthsOf(257, map[int]uint8{1: 1, 2: 1}), []uint8{1}, 1), "end of block"},
		{"over-subscribed", dynamic(lengthsOf(257, map[int]uint8{1: 1, 2: 1, 256: 1}), []uint8{1}, 1), "over-subscribed"},
		{"over-subscribed by the least", dynamic(deep(15, 15, 15), []uint8{1}, 0), "over-subscribed"},
		{"deepest", dynamic(deep(15, 15), []uint8{1}, 0, 14, 256), ""},
		{"incomplete by the least", dynamic(deep(15), []uint8{1}, 0), "incomplete"},
		{"incomplete", dynamic(lengthsOf(257, map[int]uint8{1: 2, 2: 2, 256: 2}), []uint8{1}, 1), "incomplete"},
		{"no distance code, no match", dynamic(aEnd, []uint8{0}, 'a', 256), ""},
		{"no distance code, a match", dynamic(aMatch, []uint8{0}, 'a', 257).bits(0, 48), "no code"},
		{"lone distance code", func() *encoder {
			e := dynamic(aMatch, []uint8{1}, 'a', 257).bits(0, 1)
			e.plain = []byte("aaaa")
			return e.symbol(canonical(aMatch), 256)
		}(), ""},
		{"lone distance code, other bit", dynamic(aMatch, []uint8{1}, 'a', 257).bits(1, 1).bits(0, 48), "no code"},
		{"lone distance code of two bits", dynamic(aMatch, []uint8{2}, 'a', 257), "incomplete"},
		{"over-subscribed distances", dynamic(aMatch, []uint8{1, 1, 1}, 'a', 257), "over-subscribed"},
		{"incomplete distances", dynamic(aMatch, []uint8{2, 2, 2}, 'a', 257), "incomplete"},
		{"287 length codes", new(encoder).bits(5, 3).bits(30, 5).bits(0, 48), "more codes"},
		{"31 distance codes", new(encoder).bits(5, 3).bits(0, 5).bits(30, 5).bits(0, 48), "more codes"},
		{"code lengths: none, some before", func() *encoder {
			h := lengthsOf(257, map[int]uint8{'a': 1, 256: 1})
			e := new(encoder).header(0, h, []uint8{0}).symbol(canonical(h), 256)
			return e.bits(5, 3).bits(0, 14).bits(0, 12).bits(0, 64-12).bits(0, 60)
		}(), "code lengths"},
		{"code lengths: none", new(encoder).bits(5, 3).bits(0, 14).bits(0, 48), "code lengths"},
		{"code lengths: lone", new(encoder).bits(5, 3).bits(0, 14).bits(1, 3).bits(0, 48), "code lengths"},
		{"code lengths: over-subscribed", new(encoder).bits(5, 3).bits(0, 14).bits(0o111, 9).bits(0, 48), "code lengths"},
		{"code lengths: repeat of none", new(encoder).bits(5, 3).bits(0, 14).bits(0o11, 12).bits(0, 48), "repeats none"},
		{"code lengths: too many", new(encoder).bits(5, 3).bits(0, 14).bits(0o110, 12).bits(1<<32-1, 32), "more code lengths"},
	}
	c := newChecker()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 1 << 20} {
				got, err := c.decode(t, bytes.NewReader(tt.e.member()), size)
				checkReason(t, err, tt.want)
				if err == nil && !bytes.Equal(got, tt.e.plain) {
					t.Errorf("decode = %q, want %q", got, tt.e.plain)
				}
			}
			c.compare(t, tt.e.member(), 1<<20)
			c.compareRaw(t, tt.e.align().out, 1<<20)
			// The same where the loop for the middle of a stream decodes it.
			long := new(encoder)
			long.stored(0, strings.Repeat(".", 1000))
			long.out = append(long.out, tt.e.align().out...)
			long.plain = append(long.plain, tt.e.plain...)
			if !strings.Contains(tt.want, "reaches back") {
				_, err := c.decode(t, bytes.NewReader(append(long.member(), make([]byte, 100)...)), 1<<20)
				if tt.want == "" {
					checkReason(t, err, "behind the last member")
				} else {
					checkReason(t, err, tt.want)
				}
			}
		})
	}
}

func matches(e *encoder, lits, dists *huffman, length, distance int) *encoder {
	e.match(lits, dists, length, distance)
	return e
}

// checkReason fails if err is not an [Error] with want in its reason, or not nil
// if want is empty.
func checkReason(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("decode = %v, want no error", err)
		}
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || !strings.Contains(e.Reason, want) {
		t.Errorf("decode = %v, want an Error with %q", err, want)
	}
}

// TestReach checks that a match reaches 32 KiB back, in both ways of reading, and
// not into the member before.
func TestReach(t *testing.T) {
	t.Parallel()
	lits, dists := fixedCodes()
	c := newChecker()
	for _, before := range []int{0, 1000, 200_000} {
		for _, reach := range []int{windowSize, windowSize - 1, 300} {
			for _, extra := range []int{0, 1} {
				first := new(encoder)
				for range before / 1000 {
					first.stored(0, strings.Repeat("y", 1000))
				}
				first.stored(1, "end")
				e := new(encoder).stored(0, strings.Repeat("z", reach-extra)).bits(3, 3)
				e.match(lits, dists, 258, reach)
				e.symbol(lits, endOfBlock)
				in := append(first.member(), e.member()...)
				in = append(in, first.member()...) // so that the end is not near
				for _, size := range readSizes {
					_, err := c.decode(t, bytes.NewReader(in), size)
					want := ""
					if extra > 0 {
						want = "reaches back"
					}
					checkReason(t, err, want)
				}
			}
		}
	}
}

func TestMemberRules(t *testing.T) {
	t.Parallel()
	body := append([]byte{3, 0}, make([]byte, 8)...) // an empty fixed block
	header := func(flags byte, optional ...byte) []byte {
		h := append([]byte{0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 5, 6}, optional...)
		if flags&flagHeaderCRC != 0 {
			h = binary.LittleEndian.AppendUint16(h, uint16(crc32.ChecksumIEEE(h)))
		}
		return h
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	long := bytes.Repeat([]byte("n"), maxNameSize-1)
	all := header(0x1f, 2, 0, 'e', 'x', 'n', 0, 'c', 0)
	wrongCRC := header(flagHeaderCRC)
	wrongCRC[len(wrongCRC)-1] ^= 0x80
	tests := []struct {
		name   string
		in     []byte
		want   string
		offset int64
	}{
		{"plain", join(header(0), body), "", 0},
		{"all parts", join(all, body), "", 0},
		{"text flag", join(header(1), body), "", 0},
		{"longest extra part", join(header(flagExtra, join([]byte{0xff, 0xff}, make([]byte, 0xffff))...), body), "", 0},
		{"longest name", join(header(flagName, append(long, 0)...), body), "", 0},
		{"too long a name", join(header(flagName, append(long, 'n', 0)...), body), "too long", 10 + maxNameSize},
		{"too long a comment", join(header(flagComment, append(long, 'n', 0)...), body), "too long", 10 + maxNameSize},
		{"wrong header checksum", join(wrongCRC, body), "header checksum", 12},
		{"reserved flag", join(header(0x20), body), "reserved flag", 10},
		{"reserved flag", join(header(0x80), body), "reserved flag", 10},
		{"wrong magic", join([]byte{0x1f, 0x8c}, header(0)[2:], body), "not a gzip", 10},
		{"wrong method", join([]byte{0x1f, 0x8b, 7}, header(0)[3:], body), "method", 10},
		{"two members", join(header(0), body, all, body), "", 0},
		{"bytes behind", join(header(0), body, []byte("garbage behind")), "behind the last member", 30},
		{"zeros behind", join(header(0), body, make([]byte, 512)), "behind the last member", 30},
		{"wrong checksum", join(header(0), body[:5], []byte{1}, body[6:]), "CRC-32 of the content", 20},
		{"wrong length", join(header(0), body[:9], []byte{1}), "length of the content", 20},
	}
	c := newChecker()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.decode(t, bytes.NewReader(tt.in), 100)
			checkReason(t, err, tt.want)
			if e, ok := errors.AsType[*Error](err); ok && e.Offset != tt.offset {
				t.Errorf("decode: offset %d, want %d", e.Offset, tt.offset)
			}
			if got, want := errors.Is(err, ErrChecksum), strings.Contains(tt.want, "of the content"); got != want {
				t.Errorf("errors.Is(%v, ErrChecksum) = %t, want %t", err, got, want)
			}
			c.compare(t, tt.in, 100)
		})
	}
	// Cut anywhere in a header, the end is unexpected; only no second member is
	// none.
	first := join(header(0), body)
	for n := range len(all) {
		for _, in := range [][]byte{all[:n], join(first, all[:n])} {
			_, err := c.decode(t, bytes.NewReader(in), 100)
			want := io.ErrUnexpectedEOF
			if n == 0 && len(in) > 0 {
				want = nil
			}
			if err != want { //nolint:errorlint // as it is
				t.Errorf("decode(%x) = %v, want %v", in, err, want)
			}
		}
	}
}

// TestError has the words of an error.
func TestError(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"gzip stream at byte 12: reason":                   &Error{Offset: 12, Reason: "reason"},
		"gzip stream at byte 12: invalid checksum: reason": &Error{Offset: 12, Reason: "reason", Err: ErrChecksum},
	} {
		if got := err.Error(); got != want {
			t.Errorf("Error() = %q, want %q", got, want)
		}
	}
}

// TestTables looks up every index in the tables of random codes, and compares
// what a bit by bit decoder finds.
func TestTables(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(11, 12))
	z := NewReader(nil)
	for range 15 {
		lits := canonical(randomLengths(rng, 258+rng.IntN(fixedLits-257), endOfBlock))
		dists := canonical(randomLengths(rng, 2+rng.IntN(maxDists-1), 0))
		if !z.setCodes(lits.lengths, dists.lengths, &z.ownLits, &z.ownDists) {
			t.Fatal("setCodes = false, want true")
		}
		allLits, allDists := expand(t, lits), expand(t, dists)
		for v := range uint64(1) << maxCodeLen {
			checkLookup(t, z.ownLits[:], litBits, litOther, z.litEntry[:], lits, allLits, v)
			checkLookup(t, z.ownDists[:], distBits, distOther, z.distEntry[:], dists, allDists, v)
		}
	}
}

// checkLookup looks up the bits v in table, and compares with the symbols in all.
func checkLookup(t *testing.T, table []uint32, index uint, other uint32, entries []uint32, h *huffman, all []int, v uint64) {
	t.Helper()
	want := all[v]
	e, used := table[v&(1<<index-1)], uint32(0)
	if other == litOther && e&entryLiteral != 0 && e>>countShift&countMask == 2 {
		n := uint32(h.lengths[want])
		second := all[v>>n]
		both := n + uint32(h.lengths[second])
		pair := entryLiteral + 2<<countShift + uint32(want)<<firstShift + uint32(second)<<secondShift + n<<codeShift + both
		if e != pair {
			t.Fatalf("lookup(%b) = %#x, want %#x", v, e, pair)
		}
		return
	}
	if e&(entryLiteral|other|otherLink) == other|otherLink {
		used = uint32(index)
		e = table[link(e, v>>index)]
	}
	n := uint32(h.lengths[want]) - used
	if e != entries[want]+n<<codeShift+n {
		t.Fatalf("lookup(%b) = %#x, want symbol %d", v, e, want)
	}
}

// expand returns the symbol whose code each number of 15 bits begins with.
func expand(t *testing.T, h *huffman) []int {
	t.Helper()
	all := make([]int, 1<<maxCodeLen)
	filled := 0
	for sym, n := range h.lengths {
		if n == 0 {
			continue
		}
		for v := int(h.codes[sym]); v < len(all); v += 1 << n {
			all[v] = sym
			filled++
		}
	}
	if filled != len(all) {
		t.Fatalf("the code fills %d of %d", filled, len(all))
	}
	return all
}
