// Package lmdb reads and writes the file of a small LMDB database: one
// unnamed database with a handful of keys, as Mender's clients keep their
// state in. It is bytes in, bytes out, and touches no file.
//
// [Decode] takes what liblmdb leaves behind, with 32- or 64-bit page numbers
// and any page size. [Encode] makes a complete fresh file that liblmdb opens
// and updates. Every offset is checked; a file that is not sound is a
// [FormatError], never a panic, and costs no more time and memory than its
// size allows.
//
// The format (source: LMDB 0.9, lmdb.h and mdb.c): pages of equal size. Pages
// 0 and 1 are meta pages, of which the one with the larger transaction number
// holds. It names the root of a B+ tree of branch and leaf pages; a value that
// does not fit a leaf has a run of overflow pages of its own. Numbers are in
// the machine's byte order; little-endian is all that is supported.
//
//	page     number (word), 2 bytes unused, flags u16, then
//	           branch and leaf: lower u16, upper u16, node offsets u16…,
//	             free space from lower to upper, nodes
//	           overflow: pages in the run u32, value
//	node     low half u16, high half u16, flags u16, key size u16, key, then
//	           leaf: value, its size in the halves; or, with the big flag,
//	             the number of the first overflow page (word)
//	           branch: nothing, the child's page number in the halves, and
//	             on 64-bit systems its bits from 32 on in the flags
//	meta     magic u32, version u32, address (word), map size (word), records
//	           of the free list and of the database, last page used (word),
//	           transaction (word)
//	record   page size u32 (free list) or 0, flags u16, depth u16, then words:
//	           branch, leaf and overflow pages, entries, root page
//
// A word is 4 bytes on 32-bit systems and 8 on 64-bit ones.
package lmdb
