package fuse

import (
	"encoding/binary"
	"hash/fnv"

	"golang.org/x/sys/unix"
)

// Requests (source: Linux, include/uapi/linux/fuse.h).
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opFsync       = 20
	opFlush       = 25
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opReleasedir  = 29
	opInterrupt   = 36
	opBatchForget = 42
)

const (
	protocolMajor = 7
	protocolMinor = 31
	maxRequest    = 1 << 20 // bytes; the kernel insists on 8 KiB at least
	maxWrite      = 128 << 10
	inHeaderSize  = 40
	outHeaderSize = 16
	openDirectIO  = 1 // FOPEN_DIRECT_IO
	rootID        = 1
	blockSize     = 4096
)

// request is what the kernel asks.
type request struct {
	op     uint32
	unique uint64
	node   uint64
	body   []byte
}

func parse(b []byte) request {
	le := binary.NativeEndian
	return request{op: le.Uint32(b[4:]), unique: le.Uint64(b[8:]), node: le.Uint64(b[16:]), body: b[inHeaderSize:]}
}

// reply builds an answer.
func reply(unique uint64, errno unix.Errno, body []byte) []byte {
	out := make([]byte, outHeaderSize, outHeaderSize+len(body))
	binary.NativeEndian.PutUint32(out, uint32(outHeaderSize+len(body)))
	binary.NativeEndian.PutUint32(out[4:], uint32(-int32(errno)))
	binary.NativeEndian.PutUint64(out[8:], unique)
	return append(out, body...)
}

// attr is struct fuse_attr.
func attr(node uint64, e Entry) []byte {
	ne := binary.NativeEndian
	b := make([]byte, 88)
	ne.PutUint64(b, node)
	ne.PutUint64(b[8:], uint64(e.Size))
	ne.PutUint64(b[16:], uint64(e.Size+511)/512)
	ne.PutUint32(b[60:], e.Mode)
	ne.PutUint32(b[64:], 1) // links
	ne.PutUint32(b[80:], blockSize)
	return b
}

// entryOut is struct fuse_entry_out without any time of validity.
func entryOut(node uint64, e Entry) []byte {
	b := make([]byte, 40)
	binary.NativeEndian.PutUint64(b, node)
	return append(b, attr(node, e)...)
}

// attrOut is struct fuse_attr_out without any time of validity.
func attrOut(node uint64, e Entry) []byte { return append(make([]byte, 16), attr(node, e)...) }

// openOut is struct fuse_open_out.
func openOut(flags uint32) []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint32(b[8:], flags)
	return b
}

// writeOut is struct fuse_write_out.
func writeOut(n int) []byte {
	b := make([]byte, 8)
	binary.NativeEndian.PutUint32(b, uint32(n))
	return b
}

// initOut is struct fuse_init_out.
func initOut() []byte {
	ne := binary.NativeEndian
	b := make([]byte, 64)
	ne.PutUint32(b, protocolMajor)
	ne.PutUint32(b[4:], protocolMinor)
	ne.PutUint16(b[16:], 16) // requests in the background
	ne.PutUint16(b[18:], 12)
	ne.PutUint32(b[20:], maxWrite)
	ne.PutUint32(b[24:], 1) // granularity of time, nanoseconds
	return b
}

// appendDirent adds struct fuse_dirent, if it fits into size bytes.
func appendDirent(b []byte, size int, node, next uint64, e Entry) ([]byte, bool) {
	const header = 24
	whole := (header + len(e.Name) + 7) / 8 * 8
	if len(b)+whole > size {
		return b, false
	}
	d := make([]byte, whole)
	ne := binary.NativeEndian
	ne.PutUint64(d, node)
	ne.PutUint64(d[8:], next)
	ne.PutUint32(d[16:], uint32(len(e.Name)))
	ne.PutUint32(d[20:], e.Mode>>12)
	copy(d[header:], e.Name)
	return append(b, d...), true
}

// nodeOf numbers a path.
func nodeOf(path string) uint64 {
	if path == "" {
		return rootID
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(path)) // a hash does not fail
	return h.Sum64() | 1<<63
}
