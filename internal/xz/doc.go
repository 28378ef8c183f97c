// Package xz reads .xz streams.
//
// It does what an installer needs and no more: it decodes, it verifies every
// field and every check value, and its memory is the dictionary plus less than
// 1 MiB. It is faster than the C library, because the LZMA decoder has a whole
// chunk of input in memory and so does not look for the end of its input, and
// because it decodes the bits of literals, lengths and distances without
// branches that the processor would guess wrong half of the time.
//
//	stream   header, blocks, index, footer        reader.go, index.go
//	block    header, LZMA2 data, padding, check   block.go, check.go
//	filters  x86, ARM and others, delta           filter.go, bcj.go
//	LZMA2    chunks, stored or LZMA               lzma2.go
//	LZMA     literals and matches, range coded    lzma.go, match.go, range.go
//	         the dictionary                       window.go
//
// Sources: The .xz File Format 1.1.0 (tukaani.org); for LZMA2 and the filters,
// which have no format document, XZ Embedded and the LZMA specification of the
// LZMA SDK.
package xz
