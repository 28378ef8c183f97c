package xz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

const (
	headerMagic = "\xfd7zXZ\x00"
	footerMagic = "YZ"
	frameSize   = 12 // of a stream's header and of its footer
)

// section says what comes next in the input.
type section int

const (
	firstStream section = iota // the header of the first stream
	laterStream                // padding, then another stream or the end
	nextBlock                  // a block's header, or the index
	blockData
)

// Reader decodes a series of .xz streams. A Reader belongs to one goroutine.
type Reader struct {
	in      input
	dictMax uint32
	next    section
	out     []byte // decoded and not yet returned
	err     error

	check  check // of the current stream
	blocks record
	block  block
}

// NewReader returns a reader of the content of r, one or more .xz streams with
// or without padding. A dictionary of more than dictMax bytes is refused with
// [ErrMemlimit] before memory is allocated for it. All other memory is less than
// 1 MiB, and that of the dictionary is not touched before there is content to
// fill it.
//
// Read returns an [*Error] for whatever is wrong, io.ErrUnexpectedEOF if the
// input ends too early, and errors of r as they are. At io.EOF all of r has been
// read and every check value was right. Bytes that Read has returned before an
// error may be wrong.
func NewReader(r io.Reader, dictMax uint32) *Reader {
	z := &Reader{dictMax: uint32(min(uint64(dictMax), maxWindow))}
	z.in.r = r
	return z
}

// Read never returns bytes together with an error.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(z.out) == 0 {
		if z.err == nil {
			z.err = z.step()
		}
		if z.err != nil {
			return 0, z.err
		}
	}
	n := copy(p, z.out)
	z.out = z.out[n:]
	return n, nil
}

// step reads on. It consumes input or leaves something in z.out, or both.
func (z *Reader) step() error {
	switch z.next {
	case firstStream:
		return z.streamHeader()
	case laterStream:
		return z.padding()
	case nextBlock:
		head, err := z.in.next(1)
		if err != nil {
			return err
		}
		if head[0] == 0 {
			return z.streamEnd()
		}
		z.next = blockData
		return z.block.open(&z.in, int(head[0]), z.dictMax)
	default:
		out, err := z.block.decode(&z.in)
		if errors.Is(err, io.EOF) {
			z.next = nextBlock
			return z.blockEnd()
		}
		z.check.write(out)
		z.out = out
		return err
	}
}

func (z *Reader) streamHeader() error {
	b, err := z.in.next(frameSize)
	if err != nil {
		return z.cutHeader(err)
	}
	flags := b[len(headerMagic):][:2]
	switch {
	case string(b[:len(headerMagic)]) != headerMagic:
		return z.in.corrupt("stream header")
	case crc32.ChecksumIEEE(flags) != binary.LittleEndian.Uint32(b[8:]):
		return z.in.fault(ErrChecksum, "stream header")
	case flags[0] != 0 || flags[1] > checkMax:
		return z.in.fault(ErrUnsupported, "stream flags")
	}
	if !z.check.open(flags[1]) {
		return z.in.fault(ErrUnsupportedCheck, "stream header")
	}
	z.blocks = newRecord()
	z.next = nextBlock
	return nil
}

// cutHeader tells a stream that ends in its header from bytes that begin none.
func (z *Reader) cutHeader(err error) error {
	rest := z.in.buf[z.in.pos:z.in.end]
	rest = rest[:min(len(rest), len(headerMagic))]
	if errors.Is(err, io.ErrUnexpectedEOF) && !bytes.HasPrefix([]byte(headerMagic), rest) {
		return z.in.corrupt("stream header")
	}
	return err
}

// padding skips the zeros between streams, a word at a time. Behind them is
// another stream or the end.
func (z *Reader) padding() error {
	for {
		if err := z.in.need(4); err != nil {
			return z.cutHeader(err) // at the end it is io.EOF, as it should be
		}
		if binary.LittleEndian.Uint32(z.in.buf[z.in.pos:]) != 0 {
			return z.streamHeader()
		}
		z.in.pos += 4
	}
}

// blockEnd verifies what follows a block's data.
func (z *Reader) blockEnd() error {
	unpadded, err := z.block.end(&z.in)
	if err != nil {
		return err
	}
	want, err := z.in.next(z.check.size())
	if err != nil {
		return err
	}
	if !bytes.Equal(z.check.sum(), want) {
		return z.in.fault(ErrChecksum, "content of a block")
	}
	z.blocks.add(unpadded+uint64(z.check.size()), z.block.decoded)
	z.check.reset()
	return nil
}

// streamEnd verifies index and footer.
func (z *Reader) streamEnd() error {
	size, err := z.blocks.verify(&z.in)
	if err != nil {
		return err
	}
	b, err := z.in.next(frameSize)
	if err != nil {
		return err
	}
	switch {
	case string(b[10:]) != footerMagic:
		return z.in.corrupt("stream footer")
	case crc32.ChecksumIEEE(b[4:10]) != binary.LittleEndian.Uint32(b):
		return z.in.fault(ErrChecksum, "stream footer")
	case (uint64(binary.LittleEndian.Uint32(b[4:]))+1)*4 != size:
		return z.in.corrupt("backward size in the stream footer")
	case b[8] != 0 || b[9] != z.check.id:
		return z.in.corrupt("stream flags in the stream footer")
	}
	z.next = laterStream
	return nil
}
