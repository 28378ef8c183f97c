package inflate

import (
	"hash/crc32"
)

// Bits of a member header's flags (source: RFC 1952, section 2.3.1).
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
	flagReserved  = 0xe0
)

const (
	fixedHeader   = 10  // bytes of a header that are always there
	maxNameSize   = 512 // of a name or comment with its final zero, in bytes
	methodDeflate = 8
)

// readHeader reads a member's header. It returns io.EOF if a member has ended
// and no other follows.
func (z *Reader) readHeader() error {
	if z.members && z.ip == z.end {
		return z.readErr // only at an error there is less than minInput
	}
	z.crc, z.size = 0, 0
	var head [fixedHeader]byte
	for i := range head {
		b, err := z.headerByte()
		if err != nil {
			return err
		}
		head[i] = b
	}
	switch {
	case head[0] != 0x1f || head[1] != 0x8b:
		if z.members {
			return z.fault("bytes behind the last member")
		}
		return z.fault("not a gzip stream")
	case head[2] != methodDeflate:
		return z.fault("unknown compression method")
	case head[3]&flagReserved != 0:
		return z.fault("reserved flag in a header")
	}
	if err := z.readOptional(head[3]); err != nil {
		return err
	}
	z.crc = 0
	z.state = stateBlock
	return nil
}

// readOptional reads the parts of a header that flags announces.
func (z *Reader) readOptional(flags byte) error {
	if flags&flagExtra != 0 {
		n, err := z.headerUint16()
		for ; err == nil && n > 0; n-- {
			_, err = z.headerByte()
		}
		if err != nil {
			return err
		}
	}
	for _, flag := range [...]byte{flagName, flagComment} {
		if flags&flag == 0 {
			continue
		}
		for n := 1; ; n++ {
			b, err := z.headerByte()
			if err != nil {
				return err
			}
			if b == 0 {
				break
			}
			if n == maxNameSize {
				return z.fault("name or comment in a header is too long")
			}
		}
	}
	if flags&flagHeaderCRC == 0 {
		return nil
	}
	want := int(z.crc & 0xffff)
	if got, err := z.headerUint16(); err != nil {
		return err
	} else if got != want {
		return z.fault("wrong header checksum")
	}
	return nil
}

// headerByte reads a byte and adds it to the header's checksum.
func (z *Reader) headerByte() (byte, error) {
	v, err := z.take(8)
	z.scratch[0] = byte(v)
	z.crc = crc32.Update(z.crc, crc32.IEEETable, z.scratch[:])
	return z.scratch[0], err
}

// headerUint16 reads two bytes, the low one first.
func (z *Reader) headerUint16() (int, error) {
	low, err := z.headerByte()
	if err != nil {
		return 0, err
	}
	high, err := z.headerByte()
	return int(high)<<8 | int(low), err
}

// readTrailer ends a member: its content is summed.
func (z *Reader) readTrailer() error {
	z.align()
	var words [4]uint32
	for i := range words {
		v, err := z.take(16)
		if err != nil {
			return err
		}
		words[i] = uint32(v)
	}
	if words[1]<<16|words[0] != z.crc {
		return &Error{Offset: z.offset(), Reason: "CRC-32 of the content differs", Err: ErrChecksum}
	}
	if words[3]<<16|words[2] != uint32(z.size) {
		return &Error{Offset: z.offset(), Reason: "length of the content differs", Err: ErrChecksum}
	}
	z.members = true
	z.state = stateMember
	z.align()
	return nil
}
