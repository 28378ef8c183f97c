package xz

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
)

const (
	vliMaxSize = 9                 // bytes, of seven bits each
	unknown    = uint64(1<<64 - 1) // no variable-length integer is that large
)

// record remembers the sizes of blocks, in a hash: a stream may have any number
// of them.
type record struct {
	count  uint64
	digest hash.Hash
}

func newRecord() record { return record{digest: sha256.New()} }

// add records a block. Its unpadded size is that of header, data and check.
func (r *record) add(unpadded, decoded uint64) {
	r.count++
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], unpadded)
	binary.LittleEndian.PutUint64(b[8:], decoded)
	_, _ = r.digest.Write(b[:]) // never fails
}

// verify reads a stream's index, from behind its first byte, and compares it
// with the blocks of the stream. It reads no more records than there were
// blocks. It returns the size of the index in bytes.
func (r *record) verify(in *input) (uint64, error) {
	x := indexReader{in: in, crc: crc32.Update(0, crc32.IEEETable, []byte{0}), size: 1}
	if count := x.number(); x.err != nil {
		return 0, x.err
	} else if count != r.count {
		return 0, in.corrupt("number of blocks in the index")
	}
	stored := newRecord()
	for range r.count {
		unpadded := x.number()
		stored.add(unpadded, x.number())
		if x.err != nil {
			return 0, x.err
		}
	}
	if string(stored.digest.Sum(nil)) != string(r.digest.Sum(nil)) {
		return 0, in.corrupt("sizes of blocks in the index")
	}
	for x.size%4 != 0 {
		if b := x.byte(); x.err != nil {
			return 0, x.err
		} else if b != 0 {
			return 0, in.corrupt("padding of the index")
		}
	}
	crc, err := in.next(4)
	if err != nil {
		return 0, err
	}
	if binary.LittleEndian.Uint32(crc) != x.crc {
		return 0, in.fault(ErrChecksum, "index")
	}
	return x.size + 4, nil
}

// indexReader reads bytes and their checksum. It keeps the first error.
type indexReader struct {
	in   *input
	crc  uint32
	size uint64
	err  error
}

func (x *indexReader) byte() byte {
	if x.err != nil {
		return 0
	}
	b, err := x.in.next(1)
	if err != nil {
		x.err = err
		return 0
	}
	x.crc = crc32.Update(x.crc, crc32.IEEETable, b)
	x.size++
	return b[0]
}

func (x *indexReader) number() uint64 {
	v, ok := vli(x.byte)
	if !ok && x.err == nil {
		x.err = x.in.corrupt("number in the index")
	}
	return v
}

// vli decodes a variable-length integer of 63 bits. There is one way to encode a
// number.
func vli(next func() byte) (v uint64, ok bool) {
	for i := range vliMaxSize {
		b := next()
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return v, b != 0 || i == 0
		}
	}
	return 0, false
}
