package inflate

import (
	"encoding/binary"
	"io"
)

// more reads until minInput bytes or the reader's error are there.
func (z *Reader) more() {
	z.unread()
	for empty := 0; z.end-z.ip < minInput && z.readErr == nil; {
		rest := copy(z.in[slackSize-(z.end-z.ip):slackSize], z.in[z.ip:z.end])
		z.ip, z.end = slackSize-rest, slackSize
		n, err := z.r.Read(z.in[slackSize:])
		z.end += n
		z.total += int64(n)
		z.budget -= n
		z.readErr = err
		if empty++; n > 0 {
			empty = 0
		} else if empty == maxEmptyReads && err == nil {
			z.readErr = io.ErrNoProgress
		}
	}
}

// cut returns the error of a stream that ends where it must go on.
func (z *Reader) cut() error {
	if z.readErr == io.EOF { //nolint:errorlint // an error that wraps it is no end
		return io.ErrUnexpectedEOF
	}
	return z.readErr
}

// fault makes an Error at the present place.
func (z *Reader) fault(reason string) error {
	return &Error{Offset: z.offset(), Reason: reason}
}

// offset returns how many bytes of the stream have been used, wholly or in part.
func (z *Reader) offset() int64 {
	return z.total - int64(z.end-z.ip) - int64(z.bitCount/8)
}

// unread puts whole bytes of the bit buffer back.
func (z *Reader) unread() {
	z.ip -= int(z.bitCount / 8)
	z.bitCount %= 8
	z.bitBuf &= 1<<z.bitCount - 1
}

// align skips to the next byte of the input.
func (z *Reader) align() {
	z.unread()
	z.bitBuf, z.bitCount = 0, 0
}

// refill makes the bit buffer as full as the input allows, at least 56 bits if
// there are 8 bytes.
func (z *Reader) refill() {
	if z.end-z.ip >= 8 {
		z.bitBuf |= binary.LittleEndian.Uint64(z.in[z.ip:]) << z.bitCount
		n := (63 - z.bitCount) / 8
		z.ip += int(n)
		z.bitCount += n * 8
		z.bitBuf &= 1<<z.bitCount - 1
		return
	}
	for z.bitCount < 56 && z.ip < z.end {
		z.bitBuf |= uint64(z.in[z.ip]) << z.bitCount
		z.ip++
		z.bitCount += 8
	}
}

// drop removes n bits.
func (z *Reader) drop(n uint) {
	z.bitBuf >>= n
	z.bitCount -= n
}

// take removes n bits, at most 16, and returns them.
func (z *Reader) take(n uint) (int, error) {
	if z.bitCount < n {
		if z.end-z.ip < minInput && z.readErr == nil {
			z.more()
		}
		if z.refill(); z.bitCount < n {
			return 0, z.cut()
		}
	}
	v := z.bitBuf & (1<<n - 1)
	z.drop(n)
	return int(v), nil
}
