package artifacttest

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// xzWriter writes one xz stream of one block whose LZMA2 chunks are stored, not
// compressed: a correct .xz file without an encoder.
// (source: The .xz File Format 1.1; LZMA2 as in xz-embedded)
type xzWriter struct {
	w     io.Writer
	buf   []byte
	crc   uint32
	plain uint64 // bytes of content
	block uint64 // bytes of the block without padding and check
	first bool
	err   error
}

const (
	xzChunk = 1 << 16
	xzCRC32 = 1    // check type
	xzLZMA2 = 0x21 // filter ID
	// xzDictionary encodes 64 KiB, enough for a decoder that copies chunks.
	xzDictionary = 8
)

func newXZWriter(w io.Writer) *xzWriter {
	x := &xzWriter{w: w, first: true}
	flags := []byte{0, xzCRC32}
	x.put([]byte("\xfd7zXZ\x00"), flags, crcOf(flags))
	// Size 12 in units of 4 minus 1, one filter, its properties, padding.
	header := []byte{2, 0, xzLZMA2, 1, xzDictionary, 0, 0, 0}
	x.block = uint64(x.put(header, crcOf(header)))
	return x
}

// Write implements io.Writer.
func (x *xzWriter) Write(p []byte) (int, error) {
	x.crc = crc32.Update(x.crc, crc32.IEEETable, p)
	x.plain += uint64(len(p))
	x.buf = append(x.buf, p...)
	for len(x.buf) >= xzChunk {
		x.chunk(x.buf[:xzChunk])
		x.buf = append(x.buf[:0], x.buf[xzChunk:]...)
	}
	return len(p), x.err
}

// chunk writes a stored LZMA2 chunk; the first one resets the dictionary.
func (x *xzWriter) chunk(p []byte) {
	control := byte(2)
	if x.first {
		control, x.first = 1, false
	}
	x.block += uint64(x.put(binary.BigEndian.AppendUint16([]byte{control}, uint16(len(p)-1)), p))
}

// Close ends block and stream. It does not close the writer below.
func (x *xzWriter) Close() error {
	if len(x.buf) > 0 {
		x.chunk(x.buf)
	}
	x.block += uint64(x.put([]byte{0}))
	x.put(make([]byte, -x.block&3), binary.LittleEndian.AppendUint32(nil, x.crc))

	index := []byte{0, 1}
	index = binary.AppendUvarint(index, x.block+4) // with the check
	index = binary.AppendUvarint(index, x.plain)
	index = append(index, make([]byte, -len(index)&3)...)
	size := x.put(index, crcOf(index))
	footer := binary.LittleEndian.AppendUint32(nil, uint32(size/4-1))
	footer = append(footer, 0, xzCRC32)
	x.put(crcOf(footer), footer, []byte("YZ"))
	return x.err
}

// put writes all parts and returns their length.
func (x *xzWriter) put(parts ...[]byte) int {
	n := 0
	for _, p := range parts {
		if x.err == nil {
			_, x.err = x.w.Write(p)
		}
		n += len(p)
	}
	return n
}

func crcOf(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b))
}
