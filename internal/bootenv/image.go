package bootenv

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// layout is how a copy is laid out: one of two copies has a flag byte.
type layout struct {
	redundant bool
	order     binary.ByteOrder
}

func (l layout) header() int {
	if l.redundant {
		return 5
	}
	return 4
}

// encode returns the image of a copy of size bytes. The caller has checked
// that the list fits.
func (l layout) encode(list stringList, flags byte, size int) []byte {
	image := make([]byte, size)
	data := image[l.header():]
	list.encode(data)
	l.order.PutUint32(image, crc32.ChecksumIEEE(data))
	if l.redundant {
		image[4] = flags
	}
	return image
}

// check tells what is wrong with the image of a copy ([ErrCorrupt]), nil if it is
// good.
func (l layout) check(image []byte) error {
	sum := crc32.ChecksumIEEE(image[l.header():])
	if l.order.Uint32(image) == sum {
		return nil
	}
	return corruptError("bad CRC" + l.hint(image, sum))
}

// hint tells from the bytes why a CRC may be wrong. A wrong offset and an
// environment that was never saved look alike otherwise.
func (l layout) hint(image []byte, sum uint32) string {
	other := layout{!l.redundant, l.order}
	otherSum := crc32.ChecksumIEEE(image[other.header():])
	switch {
	case all(image, 0xff), all(image, 0x00):
		return ": the area is empty; wrong offset, or the boot loader never saved its environment and uses the built-in default"
	case binary.BigEndian.Uint32(image) == sum, binary.LittleEndian.Uint32(image) == sum:
		return ": it is right in the other byte order"
	case l.order.Uint32(image) == otherSum && l.redundant:
		return ": it is right for an environment with one copy, but two are configured"
	case l.order.Uint32(image) == otherSum:
		return ": it is right for one of two copies, but one is configured"
	default:
		return ""
	}
}

func all(b []byte, c byte) bool {
	return bytes.Count(b, []byte{c}) == len(b)
}

// newer returns the index of the copy in force when both are good, from their
// flag bytes. The counter wraps at exactly one pair (source: U-Boot,
// env/common.c, env_check_redund; the same in its tools and in libubootenv).
func newer(first, second byte) int {
	switch {
	case first == 0xff && second == 0:
		return 1
	case first == 0 && second == 0xff:
		return 0
	case second > first:
		return 1
	default:
		return 0
	}
}
