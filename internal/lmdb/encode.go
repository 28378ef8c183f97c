package lmdb

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// Encode returns a complete database file that holds kv. liblmdb opens and
// updates it. Keys are 1 to 511 bytes; the file is at most [MaxFile].
func Encode(kv map[string][]byte, l Layout) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	if len(kv) > maxKeys {
		return nil, fmt.Errorf("lmdb: %d keys, more than %d", len(kv), maxKeys)
	}
	e := encoder{l: l, pages: make([][]byte, 2)} // the meta pages come last
	total := 0
	var nodes []node
	for _, key := range slices.Sorted(maps.Keys(kv)) {
		value := kv[key]
		if total += len(key) + len(value); total > MaxFile/2 {
			return nil, fmt.Errorf("lmdb: more than %d bytes of keys and values", MaxFile/2)
		}
		if len(key) == 0 || len(key) > maxKey || nodeHead+len(key)+l.WordSize > e.maxNode() {
			return nil, fmt.Errorf("lmdb: key %.64q of %d bytes", key, len(key))
		}
		nodes = append(nodes, e.node(key, value))
	}
	root, depth := l.none(), 0
	for level := e.fill(nodes, pageLeaf); len(level) > 0; level = e.fill(level, pageBranch) {
		depth++
		if len(level) == 1 {
			root = level[0].page
			break
		}
	}
	e.metaPages(root, depth, len(kv))
	return slices.Concat(e.pages...), nil
}

type encoder struct {
	l                        Layout
	pages                    [][]byte // by page number; an overflow run is one entry and then empty ones
	branch, leaves, overflow int
}

// node is an entry of a page: its bytes, and the key by which the level above
// finds it.
type node struct {
	key   string
	bytes []byte
	page  uint64 // of the page below, in branches
}

// maxNode is the largest node that liblmdb keeps on a leaf (source: LMDB,
// me_nodemax: two nodes must fit a page).
func (e *encoder) maxNode() int { return ((e.l.PageSize-e.l.header())/2)&^1 - 2 }

// node makes a leaf node, and overflow pages for a value that does not fit.
func (e *encoder) node(key string, value []byte) node {
	size := nodeHead + len(key) + len(value)
	big := size > e.maxNode()
	if big {
		size = nodeHead + len(key) + e.l.WordSize
	}
	b := make([]byte, size)
	binary.LittleEndian.PutUint16(b, uint16(len(value)))
	binary.LittleEndian.PutUint16(b[2:], uint16(len(value)>>16))
	binary.LittleEndian.PutUint16(b[6:], uint16(len(key)))
	copy(b[nodeHead:], key)
	if !big {
		copy(b[nodeHead+len(key):], value)
		return node{key: key, bytes: b}
	}
	binary.LittleEndian.PutUint16(b[4:], nodeBig)
	number := uint64(len(e.pages))
	count := (e.l.header() - 1 + len(value)) / e.l.PageSize
	count++
	run := make([]byte, count*e.l.PageSize)
	e.l.putWord(run, number)
	binary.LittleEndian.PutUint16(run[e.l.WordSize+2:], pageOverflow)
	binary.LittleEndian.PutUint32(run[e.l.WordSize+4:], uint32(count))
	copy(run[e.l.header():], value)
	e.pages = append(e.pages, run)
	e.pages = append(e.pages, make([][]byte, count-1)...)
	e.overflow += count
	e.l.putWord(b[nodeHead+len(key):], number)
	return node{key: key, bytes: b}
}

// fill packs nodes, in order, into pages of one level, and returns the branch
// nodes for the level above.
func (e *encoder) fill(nodes []node, flags uint16) []node {
	var level []node
	for len(nodes) > 0 {
		room, n := e.l.PageSize-e.l.header(), 0
		for n < len(nodes) {
			need := 2 + (len(nodes[n].bytes)+1)&^1
			if need > room {
				break
			}
			room -= need
			n++
		}
		// A branch needs two nodes at least: take one from this page rather
		// than leave one alone on the next.
		if flags == pageBranch && len(nodes)-n == 1 && n > 2 {
			n--
		}
		level = append(level, e.page(nodes[:n], flags))
		nodes = nodes[n:]
	}
	return level
}

// page makes one leaf or branch page.
func (e *encoder) page(nodes []node, flags uint16) node {
	number := uint64(len(e.pages))
	p := make([]byte, e.l.PageSize)
	upper := len(p)
	for i, n := range nodes {
		b := n.bytes
		if flags == pageBranch && i == 0 {
			b = b[:nodeHead:nodeHead] // the first key of a branch is implied (source: LMDB, mdb_node_add)
			b = append([]byte(nil), b...)
			binary.LittleEndian.PutUint16(b[6:], 0)
		}
		upper -= (len(b) + 1) &^ 1
		copy(p[upper:], b)
		binary.LittleEndian.PutUint16(p[e.l.header()+2*i:], uint16(upper))
	}
	e.l.putWord(p, number)
	binary.LittleEndian.PutUint16(p[e.l.WordSize+2:], flags)
	binary.LittleEndian.PutUint16(p[e.l.WordSize+4:], uint16(e.l.header()+2*len(nodes)))
	binary.LittleEndian.PutUint16(p[e.l.WordSize+6:], uint16(upper))
	e.pages = append(e.pages, p)
	if flags == pageBranch {
		e.branch++
	} else {
		e.leaves++
	}
	key := nodes[0].key
	up := make([]byte, nodeHead+len(key))
	binary.LittleEndian.PutUint16(up, uint16(number))
	binary.LittleEndian.PutUint16(up[2:], uint16(number>>16))
	binary.LittleEndian.PutUint16(up[6:], uint16(len(key)))
	copy(up[nodeHead:], key)
	return node{key: key, bytes: up, page: number}
}

// metaPages makes pages 0 and 1. Page 0 is an empty database of transaction 0,
// page 1 the one that holds.
func (e *encoder) metaPages(root uint64, depth, entries int) {
	last := uint64(len(e.pages) - 1)
	e.pages[0] = e.meta(0, 1, e.l.none(), 0, 0)
	e.pages[1] = e.meta(1, last, root, depth, entries)
}

func (e *encoder) meta(number, last, root uint64, depth, entries int) []byte {
	l := e.l
	page := make([]byte, l.PageSize)
	l.putWord(page, number)
	binary.LittleEndian.PutUint16(page[l.WordSize+2:], pageMeta)
	p := page[l.header():]
	binary.LittleEndian.PutUint32(p, magic)
	binary.LittleEndian.PutUint32(p[4:], dataVersion)
	size := max(l.MapSize, minMap, uint64(len(e.pages)*l.PageSize))
	l.putWord(p[8+l.WordSize:], size)
	p = p[8+2*l.WordSize:]

	// The free list: empty. Its record carries the page size, and the flag
	// that liblmdb gives it (source: LMDB, MDB_INTEGERKEY).
	binary.LittleEndian.PutUint32(p, uint32(l.PageSize))
	binary.LittleEndian.PutUint16(p[4:], 0x08)
	l.putWord(p[8+4*l.WordSize:], l.none())
	p = p[l.dbRecord():]

	binary.LittleEndian.PutUint16(p[6:], uint16(depth))
	if depth > 0 {
		l.putWord(p[8:], uint64(e.branch))
		l.putWord(p[8+l.WordSize:], uint64(e.leaves))
		l.putWord(p[8+2*l.WordSize:], uint64(e.overflow))
	}
	l.putWord(p[8+3*l.WordSize:], uint64(entries))
	l.putWord(p[8+4*l.WordSize:], root)
	p = p[l.dbRecord():]

	l.putWord(p, last)
	l.putWord(p[l.WordSize:], number) // the transaction
	return page
}
