package lmdb

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// Limits on what is read.
const (
	MaxFile  = 16 << 20 // bytes
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

	nodeBig  = 0x01 // the value is on overflow pages
	nodeSub  = 0x02 // the value is a database
	nodeDup  = 0x04 // the value is a set
	nodeHead = 8    // two halves of the size, flags, key size

	minPage     = 256
	maxPage     = 32768 // larger offsets do not fit into a node pointer
	defaultPage = 4096
	minMap      = 1 << 20
)

// Layout is what differs between files of the same content.
type Layout struct {
	WordSize int    // bytes of a page number: 4 or 8
	PageSize int    // bytes
	MapSize  uint64 // how far the database may grow, bytes
}

// Native is the layout that liblmdb makes on this machine.
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

// dbRecord is the size of a database's record in a meta page: page size,
// flags, depth, then five words.
func (l Layout) dbRecord() int { return 8 + 5*l.WordSize }

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
	binary.LittleEndian.PutUint32(b, uint32(v)) //nolint:gosec // page numbers of files below MaxFile
}

// none is the page number that stands for no page.
func (l Layout) none() uint64 {
	if l.WordSize == 8 {
		return ^uint64(0)
	}
	return uint64(^uint32(0))
}

// FormatError says what is wrong with a file, and where.
type FormatError struct {
	Offset int // bytes from the beginning
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("lmdb: offset %d: %s", e.Offset, e.Reason)
}

func bad(offset int, format string, args ...any) error {
	return &FormatError{Offset: offset, Reason: fmt.Sprintf(format, args...)}
}
