// Package lmdb reads and writes the file of a small LMDB database: one
// unnamed database with a handful of keys, as Mender's clients keep their
// state in. It is bytes in, bytes out, and touches no file.
//
// [Decode] takes what liblmdb leaves behind, with 32- or 64-bit page numbers
// and any page size. [Encode] makes a complete fresh file that liblmdb opens
// and updates. Every offset is checked; a file that is not sound is a
// [FormatError], never a panic, and costs no more memory than its size.
//
// The format (source: LMDB 0.9, lmdb.h and mdb.c): pages of equal size. Pages
// 0 and 1 are meta pages, of which the one with the larger transaction number
// holds. It names the root of a B+ tree of branch and leaf pages; a value that
// does not fit a leaf has overflow pages of its own. Numbers are in the
// machine's byte order; little-endian is all that is supported.
package lmdb
