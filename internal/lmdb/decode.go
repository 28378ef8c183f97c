package lmdb

import (
	"bytes"
	"encoding/binary"
)

// Decode returns all keys and values of a database file, and its layout. An
// empty file is an empty database of the native layout, as for liblmdb. Every
// error is a [FormatError]. The values do not alias b.
func Decode(b []byte) (map[string][]byte, Layout, error) {
	if len(b) == 0 {
		return map[string][]byte{}, Native(), nil
	}
	if len(b) > MaxFile {
		return nil, Layout{}, bad(0, "larger than %d bytes", MaxFile)
	}
	l, meta, err := findMeta(b)
	if err != nil {
		return nil, Layout{}, err
	}
	d := decoder{b: b, l: l, out: map[string][]byte{}, seen: map[uint64]bool{}}
	if meta.root != l.none() {
		if err := d.page(meta.root, 0); err != nil {
			return nil, Layout{}, err
		}
	}
	return d.out, l, nil
}

// meta is the part of a meta page that matters.
type meta struct {
	root, txn, mapSize uint64
	pageSize           int
}

// findMeta tells the layout by where the magic number is, and picks the newer
// of the two meta pages that are sound.
func findMeta(b []byte) (Layout, meta, error) {
	for _, wordSize := range []int{8, 4} {
		l := Layout{WordSize: wordSize}
		m0, err := readMeta(b, l, 0)
		if err != nil {
			continue
		}
		l.PageSize = m0.pageSize
		if err := l.check(); err != nil {
			return Layout{}, meta{}, bad(0, "page size %d", l.PageSize)
		}
		best := m0
		if m1, err := readMeta(b, l, l.PageSize); err == nil && m1.txn > m0.txn {
			if m1.pageSize != m0.pageSize {
				return Layout{}, meta{}, bad(l.PageSize, "the meta pages differ in page size")
			}
			best = m1
		}
		l.MapSize = best.mapSize
		return l, best, nil
	}
	return Layout{}, meta{}, bad(0, "no LMDB meta page")
}

func readMeta(b []byte, l Layout, offset int) (meta, error) {
	size := l.header() + 8 + 2*l.WordSize + 2*l.dbRecord() + 2*l.WordSize
	if offset+size > len(b) {
		return meta{}, bad(offset, "the file ends inside a meta page")
	}
	p := b[offset:]
	if flags := binary.LittleEndian.Uint16(p[l.WordSize+2:]); flags&pageMeta == 0 {
		return meta{}, bad(offset, "not a meta page")
	}
	p = p[l.header():]
	if binary.LittleEndian.Uint32(p) != magic || binary.LittleEndian.Uint32(p[4:]) != dataVersion {
		return meta{}, bad(offset, "no LMDB magic number, or another data version")
	}
	p = p[8:]
	m := meta{mapSize: l.word(p[l.WordSize:])}
	p = p[2*l.WordSize:]
	// The record of the free list holds the page size.
	m.pageSize = int(binary.LittleEndian.Uint32(p) & 0x7fffffff)
	p = p[l.dbRecord():]
	m.root = l.word(p[8+4*l.WordSize:])
	p = p[l.dbRecord():]
	m.txn = l.word(p[l.WordSize:])
	return m, nil
}

type decoder struct {
	b    []byte
	l    Layout
	out  map[string][]byte
	seen map[uint64]bool // pages visited: a tree has each once
}

// page reads a branch or leaf page and what is below it.
func (d *decoder) page(number uint64, depth int) error {
	if number < 2 || number >= uint64(len(d.b)/d.l.PageSize) {
		return bad(0, "page %d is outside of the file", number)
	}
	offset := int(number) * d.l.PageSize
	if depth > maxDepth || d.seen[number] {
		return bad(offset, "the tree is too deep or runs in circles")
	}
	d.seen[number] = true
	p := d.b[offset:][:d.l.PageSize]
	flags := binary.LittleEndian.Uint16(p[d.l.WordSize+2:])
	lower := int(binary.LittleEndian.Uint16(p[d.l.WordSize+4:]))
	if lower < d.l.header() || lower > len(p) {
		return bad(offset, "lower bound %d", lower)
	}
	for i := d.l.header(); i+1 < lower; i += 2 {
		at := int(binary.LittleEndian.Uint16(p[i:]))
		if at < lower || at+nodeHead > len(p) {
			return bad(offset+i, "node at %d", at)
		}
		var err error
		switch {
		case flags&pageBranch != 0:
			err = d.page(d.child(p[at:]), depth+1)
		case flags&pageLeaf != 0:
			err = d.leaf(p[at:], offset+at)
		default:
			err = bad(offset, "page flags %#x", flags)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// child returns the page number in a branch node.
func (d *decoder) child(node []byte) uint64 {
	lo, hi := uint64(binary.LittleEndian.Uint16(node)), uint64(binary.LittleEndian.Uint16(node[2:]))
	n := lo | hi<<16
	if d.l.WordSize == 8 {
		n |= uint64(binary.LittleEndian.Uint16(node[4:])) << 32
	}
	return n
}

// leaf reads one key and its value.
func (d *decoder) leaf(node []byte, offset int) error {
	size := int(binary.LittleEndian.Uint16(node)) | int(binary.LittleEndian.Uint16(node[2:]))<<16
	flags := binary.LittleEndian.Uint16(node[4:])
	keySize := int(binary.LittleEndian.Uint16(node[6:]))
	if keySize == 0 || keySize > maxKey || nodeHead+keySize > len(node) {
		return bad(offset, "key of %d bytes", keySize)
	}
	if flags&(nodeSub|nodeDup) != 0 {
		return bad(offset, "databases inside the database are not supported")
	}
	key, rest := string(node[nodeHead:][:keySize]), node[nodeHead+keySize:]
	if _, twice := d.out[key]; twice || len(d.out) == maxKeys {
		return bad(offset, "key %.64q is there twice, or there are more than %d", key, maxKeys)
	}
	if flags&nodeBig != 0 {
		value, err := d.overflow(rest, size, offset)
		if err != nil {
			return err
		}
		d.out[key] = value
		return nil
	}
	if size > len(rest) {
		return bad(offset, "value of %d bytes ends outside of its page", size)
	}
	d.out[key] = bytes.Clone(rest[:size:size])
	if d.out[key] == nil {
		d.out[key] = []byte{}
	}
	return nil
}

// overflow reads a value that has pages of its own.
func (d *decoder) overflow(rest []byte, size, offset int) ([]byte, error) {
	if len(rest) < d.l.WordSize {
		return nil, bad(offset, "no room for a page number")
	}
	number := d.l.word(rest)
	if number < 2 || number >= uint64(len(d.b)/d.l.PageSize) || d.seen[number] {
		return nil, bad(offset, "overflow page %d is outside of the file or used twice", number)
	}
	d.seen[number] = true
	start := int(number)*d.l.PageSize + d.l.header()
	if size < 0 || size > len(d.b)-start {
		return nil, bad(offset, "value of %d bytes ends outside of the file", size)
	}
	if flags := binary.LittleEndian.Uint16(d.b[start-d.l.header()+d.l.WordSize+2:]); flags&pageOverflow == 0 {
		return nil, bad(start, "not an overflow page")
	}
	return bytes.Clone(d.b[start:][:size]), nil
}
