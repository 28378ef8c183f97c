package xz

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"hash/crc64"
)

// Check IDs (source: The .xz File Format, "Stream Flags").
const (
	checkNone   = 0
	checkCRC32  = 1
	checkCRC64  = 4
	checkSHA256 = 10
	checkMax    = 15 // more are not check IDs
)

// check computes the check value of a block's content.
type check struct {
	id  byte
	c32 uint32
	c64 uint64
	sha hash.Hash
	buf [sha256.Size]byte
}

// open begins a stream with the given check. It reports whether it is known.
func (c *check) open(id byte) bool {
	c.id = id
	switch id {
	case checkNone, checkCRC32, checkCRC64:
	case checkSHA256:
		if c.sha == nil {
			c.sha = sha256.New()
		}
	default:
		return false
	}
	c.reset()
	return true
}

func (c *check) reset() {
	c.c32, c.c64 = 0, 0
	if c.id == checkSHA256 {
		c.sha.Reset()
	}
}

func (c *check) write(p []byte) {
	switch c.id {
	case checkCRC32:
		c.c32 = crc32.Update(c.c32, crc32.IEEETable, p)
	case checkCRC64:
		c.c64 = crc64.Update(c.c64, crc64.MakeTable(crc64.ECMA), p)
	case checkSHA256:
		_, _ = c.sha.Write(p) // never fails
	}
}

// size returns the size of the check value in bytes.
func (c *check) size() int {
	switch c.id {
	case checkCRC32:
		return crc32.Size
	case checkCRC64:
		return crc64.Size
	case checkSHA256:
		return sha256.Size
	}
	return 0
}

// sum returns the check value as it is stored.
func (c *check) sum() []byte {
	switch c.id {
	case checkCRC32:
		return binary.LittleEndian.AppendUint32(c.buf[:0], c.c32)
	case checkCRC64:
		return binary.LittleEndian.AppendUint64(c.buf[:0], c.c64)
	case checkSHA256:
		return c.sha.Sum(c.buf[:0])
	}
	return nil
}
