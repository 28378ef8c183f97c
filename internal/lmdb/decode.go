package lmdb

import (
	"encoding/binary"
	"fmt"
)

// Decode returns all keys and values of a database file, and its layout. An
// empty file is an empty database of the native layout, as for liblmdb. The
// values do not alias b.
//
// Every error is a [FormatError], that of the first damage met. What could be
// read around the damage is returned with it: each key's value is whole, but
// any of them may be missing.
func Decode(b []byte) (map[string][]byte, Layout, error) {
	d := decoder{b: b, out: map[string][]byte{}, seen: map[uint64]bool{}, budget: len(b)}
	switch {
	case len(b) == 0:
		return d.out, Native(), nil
	case len(b) > MaxFile:
		d.fault(0, "larger than %d bytes", MaxFile)
		return d.out, Layout{}, d.err
	}
	m, ok := d.findMeta()
	switch {
	case !ok:
		d.fault(0, "no LMDB meta page")
	case m.flags&dbKinds != 0:
		d.fault(0, "database of another kind, flags %#x", m.flags)
	case m.root != d.l.none():
		d.page(m.root, 1)
	}
	if d.err != nil { // not returned as it is: a nil *FormatError is an error
		return d.out, d.l, d.err
	}
	return d.out, d.l, nil
}

type decoder struct {
	b      []byte
	l      Layout
	out    map[string][]byte
	seen   map[uint64]bool // pages met: in a tree each is there once
	budget int             // bytes that keys and values may still take: pages may overlap
	err    *FormatError    // the first fault
}

func (d *decoder) fault(offset int, format string, args ...any) {
	if d.err == nil {
		d.err = &FormatError{Offset: offset, Reason: fmt.Sprintf(format, args...)}
	}
}

// meta is the part of a meta page that matters.
type meta struct {
	root, txn uint64
	flags     uint16
}

// findMeta tells the layout by where the magic number is, and picks the newer
// of the two meta pages. If one is not sound the other serves: liblmdb writes
// them in turn, so that it holds the state before or after the last
// transaction.
func (d *decoder) findMeta() (meta, bool) {
	for _, wordSize := range []int{8, 4} {
		best, layout, ok := d.meta(wordSize, 0)
		for size := minPage; size <= maxPage; size *= 2 {
			if ok && size != layout.PageSize {
				continue
			}
			m, l, sound := d.meta(wordSize, size)
			if sound && l.PageSize == size && (!ok || m.txn > best.txn) {
				best, layout, ok = m, l, true
			}
		}
		if ok {
			d.l = layout
			return best, true
		}
	}
	return meta{}, false
}

// meta reads the meta page at offset.
func (d *decoder) meta(wordSize, offset int) (m meta, l Layout, ok bool) {
	l.WordSize = wordSize
	size := l.header() + 8 + 2*wordSize + 2*l.record() + 2*wordSize
	if offset > len(d.b)-size {
		return meta{}, Layout{}, false
	}
	p := d.b[offset:]
	if l.flags(p)&pageMeta == 0 {
		return meta{}, Layout{}, false
	}
	p = p[l.header():]
	if binary.LittleEndian.Uint32(p) != magic || binary.LittleEndian.Uint32(p[4:]) != dataVersion {
		return meta{}, Layout{}, false
	}
	p = p[8+wordSize:] // the address is a hint
	l.MapSize = l.word(p)
	free := p[wordSize:]
	main := free[l.record():]
	tail := main[l.record():]
	// More than an int of 32 bits has no page size to offer.
	l.PageSize = int(min(binary.LittleEndian.Uint32(free), maxPage+1))
	m.flags = binary.LittleEndian.Uint16(main[4:])
	m.root = l.word(main[8+4*wordSize:])
	m.txn = l.word(tail[wordSize:])
	return m, l, l.check() == nil
}

// take returns a page that was not met yet, and its offset.
func (d *decoder) take(number uint64, from int) (page []byte, offset int, ok bool) {
	if number < 2 || number >= uint64(len(d.b)/d.l.PageSize) {
		d.fault(from, "page %d is outside of the file", number)
		return nil, 0, false
	}
	offset = int(number) * d.l.PageSize
	if d.seen[number] {
		d.fault(from, "page %d is used twice", number)
		return nil, 0, false
	}
	d.seen[number] = true
	page = d.b[offset:][:d.l.PageSize]
	if got := d.l.word(page); got != number {
		d.fault(offset, "page %d has the number %d", number, got)
		return nil, 0, false
	}
	return page, offset, true
}

// page reads a branch or leaf page and what is below it. The root has depth 1.
func (d *decoder) page(number uint64, depth int) {
	page, offset, ok := d.take(number, 0)
	if !ok {
		return
	}
	if depth > maxDepth {
		d.fault(offset, "more than %d levels", maxDepth)
		return
	}
	flags := d.l.flags(page) & (pageBranch | pageLeaf | pageOverflow | pageMeta | pageSpecial)
	if flags != pageBranch && flags != pageLeaf {
		d.fault(offset, "neither a branch nor a leaf: flags %#x", flags)
		return
	}
	lower := int(binary.LittleEndian.Uint16(page[d.l.WordSize+4:]))
	if lower < d.l.header() || lower > len(page) {
		d.fault(offset, "lower bound %d", lower)
		return
	}
	for i := d.l.header(); i+1 < lower; i += 2 {
		at := int(binary.LittleEndian.Uint16(page[i:]))
		switch {
		case at < lower || at+nodeHead > len(page):
			d.fault(offset+i, "node at %d", at)
		case flags == pageBranch:
			d.page(d.child(page[at:]), depth+1)
		default:
			d.leaf(page[at:], offset+at)
		}
	}
}

// child returns the page number in a branch node.
func (d *decoder) child(node []byte) uint64 {
	number := uint64(binary.LittleEndian.Uint32(node))
	if d.l.WordSize == 8 {
		number |= uint64(binary.LittleEndian.Uint16(node[4:])) << 32
	}
	return number
}

// leaf reads one key and its value.
func (d *decoder) leaf(node []byte, offset int) {
	size := int64(binary.LittleEndian.Uint32(node)) // an int of 32 bits may not hold it
	flags := binary.LittleEndian.Uint16(node[4:])
	keySize := int(binary.LittleEndian.Uint16(node[6:]))
	if keySize == 0 || keySize > maxKey || nodeHead+keySize > len(node) {
		d.fault(offset, "key of %d bytes", keySize)
		return
	}
	if flags&(nodeSub|nodeDup) != 0 {
		d.fault(offset, "the value is a database or a set")
		return
	}
	key, value := node[nodeHead:][:keySize], node[nodeHead+keySize:]
	if _, twice := d.out[string(key)]; twice {
		d.fault(offset, "key %.64q is there twice", key)
		return
	}
	if flags&nodeBig != 0 {
		var ok bool
		if value, ok = d.overflow(value, size, offset); !ok {
			return
		}
	}
	if size > int64(len(value)) {
		d.fault(offset, "value of %d bytes ends outside of its page", size)
		return
	}
	if len(d.out) == maxKeys || keySize+int(size) > d.budget {
		d.fault(offset, "more than %d keys, or more data than the file holds", maxKeys)
		return
	}
	d.budget -= keySize + int(size)
	d.out[string(key)] = append([]byte{}, value[:size]...)
}

// overflow returns the room for a value that has pages of its own.
func (d *decoder) overflow(node []byte, size int64, offset int) (room []byte, ok bool) {
	if len(node) < d.l.WordSize {
		d.fault(offset, "no room for a page number")
		return nil, false
	}
	first, start, ok := d.take(d.l.word(node), offset)
	if !ok {
		return nil, false
	}
	if d.l.flags(first)&pageOverflow == 0 {
		d.fault(start, "not an overflow page")
		return nil, false
	}
	count := int64(binary.LittleEndian.Uint32(first[d.l.WordSize+4:]))
	room = d.b[start:]
	if count < 1 || count > int64(len(room)/d.l.PageSize) {
		d.fault(start, "run of %d pages ends outside of the file", count)
		return nil, false
	}
	room = room[d.l.header() : int(count)*d.l.PageSize]
	if size > int64(len(room)) {
		d.fault(offset, "value of %d bytes ends outside of its %d pages", size, count)
		return nil, false
	}
	return room, true
}
