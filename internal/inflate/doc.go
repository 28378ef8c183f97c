// Package inflate decompresses gzip streams. It does what compress/gzip does for
// a reader, in half of the time and in a fixed amount of memory.
//
// [Reader] takes a series of one or more members (source: RFC 1952). Each has a
// header, a deflate stream, and the CRC-32 and the length of its content:
//
//	1f 8b 08 flags mtime(4) xfl os [extra] [name] [comment] [header CRC-16]
//	deflate blocks
//	CRC-32 u32, length modulo 2^32 u32
//
// A deflate stream is a series of blocks of bits, least significant bit of each
// byte first (source: RFC 1951). A block is stored, or it is coded by a pair of
// Huffman codes, fixed or sent ahead of it: one for bytes, the end of the block
// and lengths of matches, one for distances of matches. A match repeats what
// was decoded up to 32 KiB before, within the member.
//
// Where decoders differ, this one does what zlib does: a set of code lengths
// must be neither over-subscribed nor incomplete, except that there may be no
// distance code and a lone code of one bit; the code of code lengths must be
// complete; the end of the block must have a code; header flags without a
// meaning are refused. compress/gzip takes such flags, and klauspost/compress
// takes an empty code of code lengths. Like both, and unlike zlib and gzip(1),
// it refuses names and comments of 512 bytes and more and bytes of any value
// behind the last member. No member at all is an unexpected end.
//
// # How it is fast
//
// Bits come from a 64-bit buffer that is filled by loads of 8 bytes. One look
// into a table gives up to two literals, or the base and the number of extra
// bits of a length. What is decoded goes to its place right away, from where
// matches copy it 8 bytes at a time. The loop that does this runs only where
// neither input nor output can end in an iteration; the code for the ends
// decodes the same tables one symbol at a time and checks everything.
package inflate
