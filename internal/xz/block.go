package xz

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// Block flags (source: The .xz File Format, "Block Flags").
const (
	flagFilters      = 0x03 // number of filters, minus one
	flagReserved     = 0x3c
	flagCompressed   = 0x40 // the header says the size of the data
	flagUncompressed = 0x80 // and of the content
)

const (
	filterLZMA2 = 0x21
	// maxDictProperty encodes 4 GiB less one byte. Others encode 2 or 3 times
	// a power of two.
	maxDictProperty = 40
	// maxBlockSize is the limit of the sum of all sizes of a block.
	maxBlockSize = 1<<63 - 1
)

// block decodes one block after another.
type block struct {
	lzma2   lzma2
	filters filters

	headerSize   int
	start        int64  // offset of the data in the input
	compressed   uint64 // size of the data that the header says, or unknown
	uncompressed uint64 // size of the content that the header says, or unknown
	decoded      uint64 // bytes so far
}

// open reads a block's header, from behind its first byte, and gets ready to
// decode the block.
func (b *block) open(in *input, first int, dictMax uint32) error {
	b.headerSize = 4 * (first + 1)
	rest, err := in.next(b.headerSize - 1)
	if err != nil {
		return err
	}
	rest, sum := rest[:len(rest)-4], rest[len(rest)-4:]
	crc := crc32.Update(0, crc32.IEEETable, []byte{byte(first)})
	if crc32.Update(crc, crc32.IEEETable, rest) != binary.LittleEndian.Uint32(sum) {
		return in.fault(ErrChecksum, "block header")
	}
	dict, err := b.parse(in, rest)
	if err != nil {
		return err
	}
	if dict > dictMax {
		return in.fault(ErrMemlimit, "block header")
	}
	b.start, b.decoded = in.offset(), 0
	b.lzma2.open(dict, b.uncompressed)
	return nil
}

// parse decodes a block's header, from its flags to its padding. It returns the
// size of the dictionary in bytes.
func (b *block) parse(in *input, rest []byte) (dict uint32, err error) {
	h := fields{rest: rest}
	flags := h.byte()
	if flags&flagReserved != 0 {
		return 0, in.fault(ErrUnsupported, "block flags")
	}
	b.compressed, b.uncompressed = unknown, unknown
	if flags&flagCompressed != 0 {
		b.compressed = h.number()
		if b.compressed == 0 || b.compressed > maxBlockSize-uint64(b.headerSize) {
			h.bad = true
		}
	}
	if flags&flagUncompressed != 0 {
		b.uncompressed = h.number()
	}
	b.filters.reset()
	for range flags & flagFilters {
		id, properties := h.filter()
		if !h.bad && !b.filters.add(id, properties) {
			return 0, in.fault(ErrUnsupported, "filter")
		}
	}
	id, properties := h.filter()
	if h.bad {
		return 0, in.corrupt("block header")
	}
	if id != filterLZMA2 || len(properties) != 1 || properties[0] > maxDictProperty {
		return 0, in.fault(ErrUnsupported, "last filter")
	}
	for _, c := range h.rest {
		if c != 0 {
			return 0, in.fault(ErrUnsupported, "padding of a block header")
		}
	}
	if properties[0] == maxDictProperty {
		return 1<<32 - 1, nil
	}
	return uint32(2+properties[0]&1) << (properties[0]/2 + 11), nil
}

// decode returns the next bytes of content, maybe none, which are valid until
// the next call. At the end of the data it returns io.EOF.
func (b *block) decode(in *input) ([]byte, error) {
	if b.filters.ended() {
		return nil, io.EOF
	}
	out, err := b.lzma2.decode(in)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case b.size(in) > b.compressed:
		return nil, in.corrupt("more data than the block header says")
	case b.filters.used():
		out = b.filters.run(out, err != nil)
		err = nil
	}
	b.decoded += uint64(len(out))
	return out, err
}

// size returns how much data was read. A chunk is read as a whole.
func (b *block) size(in *input) uint64 { return uint64(in.offset() - b.start) }

// end verifies sizes and padding. It returns the size of header and data.
func (b *block) end(in *input) (unpadded uint64, err error) {
	size := b.size(in)
	switch {
	case b.compressed != unknown && b.compressed != size:
		return 0, in.corrupt("less data than the block header says")
	case b.uncompressed != unknown && b.uncompressed != b.decoded:
		return 0, in.corrupt("less content than the block header says")
	}
	padding, err := in.next(int(-size & 3))
	if err != nil {
		return 0, err
	}
	for _, c := range padding {
		if c != 0 {
			return 0, in.corrupt("padding of a block")
		}
	}
	return uint64(b.headerSize) + size, nil
}

// fields takes a block header apart. It remembers whether something was wrong.
type fields struct {
	rest []byte
	bad  bool
}

func (h *fields) bytes(n int) []byte {
	if n > len(h.rest) {
		h.bad = true
		return nil
	}
	b := h.rest[:n]
	h.rest = h.rest[n:]
	return b
}

func (h *fields) byte() byte {
	if b := h.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (h *fields) number() uint64 {
	v, ok := vli(h.byte)
	h.bad = h.bad || !ok
	return v
}

func (h *fields) filter() (id uint64, properties []byte) {
	id = h.number()
	size := h.number()
	return id, h.bytes(int(min(size, uint64(len(h.rest)+1))))
}
