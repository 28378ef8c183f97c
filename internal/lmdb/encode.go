package lmdb

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// Encode returns a complete database file that holds kv, in the layout l.
// liblmdb opens and updates it.
//
// Keys are 1 to 511 bytes, and no longer than a quarter of a page; there are at
// most 4,096. The file is at most [MaxFile]. The map size is that of l, but at
// least 1 MiB and twice the file, because liblmdb writes changed pages anew
// before it gives the old ones up; and at most 1 GiB.
func Encode(kv map[string][]byte, l Layout) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	if len(kv) > maxKeys {
		return nil, fmt.Errorf("lmdb: %d keys, more than %d", len(kv), maxKeys)
	}
	e := encoder{l: l, b: make([]byte, 2*l.PageSize)} // the meta pages are filled in at the end
	var nodes []node
	for _, key := range slices.Sorted(maps.Keys(kv)) {
		value := kv[key]
		if len(key) == 0 || len(key) > l.maxKey() {
			return nil, fmt.Errorf("lmdb: key %.64q of %d bytes", key, len(key))
		}
		if len(value) > MaxFile-len(e.b) {
			return nil, fmt.Errorf("lmdb: more than %d bytes", MaxFile)
		}
		nodes = append(nodes, e.node(key, value))
	}
	tree := record{root: l.none(), entries: len(kv)}
	if len(nodes) > 0 {
		level := e.fill(nodes, pageLeaf)
		tree.leaves, tree.depth = len(level), 1
		for len(level) > 1 {
			level = e.fill(level, pageBranch)
			tree.branches += len(level)
			tree.depth++
		}
		tree.root, tree.overflow = level[0].child, e.overflow
	}
	if len(e.b) > MaxFile {
		return nil, fmt.Errorf("lmdb: more than %d bytes", MaxFile)
	}
	// Both meta pages hold, page 1 by its larger transaction number.
	e.meta(0, tree)
	e.meta(1, tree)
	return e.b, nil
}

type encoder struct {
	l        Layout
	b        []byte // whole pages
	overflow int    // pages
}

// grow adds count pages and returns them, with the header that all pages have.
func (e *encoder) grow(count int, flags uint16) (pages []byte, number uint64) {
	start := len(e.b)
	number = uint64(start / e.l.PageSize)
	e.b = append(e.b, make([]byte, count*e.l.PageSize)...)
	pages = e.b[start:]
	e.pageHead(pages, number, flags)
	return pages, number
}

func (e *encoder) pageHead(page []byte, number uint64, flags uint16) {
	e.l.putWord(page, number)
	binary.LittleEndian.PutUint16(page[e.l.WordSize+2:], flags)
}

// node is an entry of a page.
type node struct {
	bytes []byte
	key   string
	child uint64 // the page below, in a branch
}

func newNode(number uint64, flags uint16, key string, value []byte) []byte {
	b := make([]byte, nodeHead, nodeHead+len(key)+len(value))
	binary.LittleEndian.PutUint32(b, uint32(number))
	binary.LittleEndian.PutUint16(b[4:], flags)
	binary.LittleEndian.PutUint16(b[6:], uint16(len(key)))
	return append(append(b, key...), value...)
}

// node makes a leaf node, and overflow pages for a value that does not fit.
func (e *encoder) node(key string, value []byte) node {
	size := uint64(len(value))
	if nodeHead+len(key)+len(value) <= e.l.maxNode() {
		return node{key: key, bytes: newNode(size, 0, key, value)}
	}
	count := e.l.overflowPages(len(value))
	run, number := e.grow(count, pageOverflow)
	binary.LittleEndian.PutUint32(run[e.l.WordSize+4:], uint32(count))
	copy(run[e.l.header():], value)
	e.overflow += count
	pointer := make([]byte, e.l.WordSize)
	e.l.putWord(pointer, number)
	return node{key: key, bytes: newNode(size, nodeBig, key, pointer)}
}

// fill packs nodes, in order, into pages of one level, and returns the branch
// nodes for the level above. Each branch page gets two nodes at least, as
// liblmdb insists: three fit any page (see [Layout.maxKey]), so the last page
// can always have one from the page before it.
func (e *encoder) fill(nodes []node, flags uint16) []node {
	var level []node
	for len(nodes) > 0 {
		n, room := 0, e.l.PageSize-e.l.header()
		for n < len(nodes) && nodeRoom(nodes[n]) <= room {
			room -= nodeRoom(nodes[n])
			n++
		}
		if len(nodes)-n == 1 && flags == pageBranch {
			n--
		}
		level = append(level, e.page(nodes[:n], flags))
		nodes = nodes[n:]
	}
	return level
}

// nodeRoom is what a node takes of a page: an even size, and its offset.
func nodeRoom(n node) int { return (len(n.bytes)+1)&^1 + 2 }

// page makes one leaf or branch page, and the node by which the level above
// finds it.
func (e *encoder) page(nodes []node, flags uint16) node {
	p, number := e.grow(1, flags)
	lower, upper := e.l.header(), len(p)
	for i, n := range nodes {
		b := n.bytes
		if flags == pageBranch && i == 0 {
			// The first key of a branch is implied, so that smaller keys can
			// come (source: LMDB, mdb_node_search).
			b = newNode(n.child, 0, "", nil)
		}
		upper -= (len(b) + 1) &^ 1
		copy(p[upper:], b)
		binary.LittleEndian.PutUint16(p[lower:], uint16(upper))
		lower += 2
	}
	binary.LittleEndian.PutUint16(p[e.l.WordSize+4:], uint16(lower))
	binary.LittleEndian.PutUint16(p[e.l.WordSize+6:], uint16(upper))
	key := nodes[0].key
	return node{key: key, child: number, bytes: newNode(number, 0, key, nil)}
}

// record describes a database in a meta page.
type record struct {
	pageSize int
	flags    uint16
	depth    int
	branches int
	leaves   int
	overflow int
	entries  int
	root     uint64
}

func (e *encoder) record(p []byte, r record) {
	binary.LittleEndian.PutUint32(p, uint32(r.pageSize))
	binary.LittleEndian.PutUint16(p[4:], r.flags)
	binary.LittleEndian.PutUint16(p[6:], uint16(r.depth))
	for i, n := range []int{r.branches, r.leaves, r.overflow, r.entries} {
		e.l.putWord(p[8+i*e.l.WordSize:], uint64(n))
	}
	e.l.putWord(p[8+4*e.l.WordSize:], r.root)
}

// meta fills in a meta page. Its number is its transaction's, too.
func (e *encoder) meta(number uint64, tree record) {
	size := uint64(len(e.b))
	mapSize := min(max(e.l.MapSize, minMap, 2*size), maxMap)
	mapSize = (mapSize + mapAlign - 1) &^ (mapAlign - 1)

	page := e.b[int(number)*e.l.PageSize:][:e.l.PageSize]
	e.pageHead(page, number, pageMeta)
	p := page[e.l.header():]
	binary.LittleEndian.PutUint32(p, magic)
	binary.LittleEndian.PutUint32(p[4:], dataVersion)
	p = p[8+e.l.WordSize:] // no address
	e.l.putWord(p, mapSize)
	p = p[e.l.WordSize:]
	// The free list is empty: no page of a fresh file is free.
	e.record(p, record{pageSize: e.l.PageSize, flags: dbIntegerKey, root: e.l.none()})
	p = p[e.l.record():]
	e.record(p, tree)
	p = p[e.l.record():]
	e.l.putWord(p, size/uint64(e.l.PageSize)-1) // the last page
	e.l.putWord(p[e.l.WordSize:], number)
}
