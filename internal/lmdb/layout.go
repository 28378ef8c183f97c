package lmdb

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// MaxFile bounds what is read and written, in bytes. A store of Mender's has
// some 32 KiB.
const MaxFile = 16 << 20

// More limits on what is read.
const (
	maxKeys  = 4096
	maxDepth = 16
	maxKey   = 511 // bytes (source: LMDB, MDB_MAXKEYSIZE)
)

const (
	magic       = 0xBEEFC0DE
	dataVersion = 1

	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageOverflow = 0x04
	pageMeta     = 0x08
	pageSpecial  = 0x60 // leaves of sets, which a plain database has not

	dbIntegerKey = 0x08
	dbKinds      = 0x7e // other key orders, and sets of values

	nodeBig  = 0x01 // the value is on overflow pages
	nodeSub  = 0x02 // the value is a database
	nodeDup  = 0x04 // the value is a set
	nodeHead = 8    // bytes

	minPage     = 256
	maxPage     = 32768 // larger offsets do not fit into a page header (source: LMDB, MAX_PAGESIZE)
	defaultPage = 4096  // liblmdb takes the page size of the file that is there

	// The map size is how far liblmdb lets the file grow unless its caller
	// says otherwise.
	minMap   = 1 << 20 // liblmdb's default (source: LMDB, DEFAULT_MAPSIZE)
	maxMap   = 1 << 30 // more than this may not fit a 32-bit address space
	mapAlign = 1 << 16 // the map size is whole pages of any machine's memory
)

// Layout is what differs between files of the same content.
type Layout struct {
	WordSize int    // bytes of a page number: 4 or 8
	PageSize int    // bytes, a power of two from 256 to 32,768
	MapSize  uint64 // how far the database may grow, bytes
}

// Native is the layout of a fresh database on this machine.
func Native() Layout {
	return Layout{WordSize: strconv.IntSize / 8, PageSize: defaultPage, MapSize: minMap}
}

func (l Layout) check() error {
	if l.WordSize != 4 && l.WordSize != 8 {
		return fmt.Errorf("lmdb: word size %d", l.WordSize)
	}
	if l.PageSize < minPage || l.PageSize > maxPage || l.PageSize&(l.PageSize-1) != 0 {
		return fmt.Errorf("lmdb: page size %d", l.PageSize)
	}
	return nil
}

// header is the size of a page header.
func (l Layout) header() int { return l.WordSize + 8 }

// record is the size of a database's record in a meta page.
func (l Layout) record() int { return 8 + 5*l.WordSize }

// flags returns the flags of a page.
func (l Layout) flags(page []byte) uint16 { return binary.LittleEndian.Uint16(page[l.WordSize+2:]) }

func (l Layout) word(b []byte) uint64 {
	if l.WordSize == 8 {
		return binary.LittleEndian.Uint64(b)
	}
	return uint64(binary.LittleEndian.Uint32(b))
}

func (l Layout) putWord(b []byte, v uint64) {
	if l.WordSize == 8 {
		binary.LittleEndian.PutUint64(b, v)
		return
	}
	binary.LittleEndian.PutUint32(b, uint32(v)) // numbers of files below maxMap, or none
}

// none is the page number that stands for no page.
func (l Layout) none() uint64 {
	if l.WordSize == 8 {
		return ^uint64(0)
	}
	return uint64(^uint32(0))
}

// maxNode is the size of the largest node that liblmdb keeps on a page: two of
// them fit (source: LMDB, me_nodemax).
func (l Layout) maxNode() int { return ((l.PageSize-l.header())/2)&^1 - 2 }

// maxKey is the length of the longest key. On small pages it is less than
// liblmdb's, so that three nodes fit a branch page; see [encoder.fill].
func (l Layout) maxKey() int { return min(maxKey, l.PageSize/4) }

// overflowPages is how many pages a value of size bytes takes (source: LMDB,
// OVPAGES).
func (l Layout) overflowPages(size int) int { return (l.header()-1+size)/l.PageSize + 1 }

// FormatError says what is wrong with a file, and where.
type FormatError struct {
	Offset int // bytes from the beginning
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("lmdb: offset %d: %s", e.Offset, e.Reason)
}
