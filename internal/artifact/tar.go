package artifact

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

const blockSize = 512

// errEnd is the end of an archive. It is not io.EOF, because a failing stream
// may well wrap that one.
var errEnd = errors.New("end of archive")

// Fields of a tar header (source: POSIX.1-1988 ustar; GNU tar for base 256).
const (
	tarNameEnd     = 100
	tarSizeOff     = 124
	tarSizeEnd     = 136
	tarChecksumOff = 148
	tarChecksumEnd = 156
	tarTypeOff     = 156
	tarMagicOff    = 257
	tarPrefixOff   = 345
	tarPrefixEnd   = 500

	tarRegular    = '0'
	tarRegularOld = 0
	tarDirectory  = '5'
	tarPAX        = 'x'
)

// tarReader reads a tar that holds regular files only. It is not archive/tar,
// which expands sparse files, takes unknown types for files and stops before
// the end. Here an archive must end with two zero blocks and then nothing but
// a bounded run of zeros up to the end of its stream, and what pads an entry to
// a full block is zero too.
//
// One PAX header may precede an entry, because writers need one for long names
// and sizes above 8 GiB; of its records only path and size mean anything.
type tarReader struct {
	r          io.Reader
	what       string   // for error texts: "archive"
	dirs       []string // directory entries that are tolerated
	maxEntries int

	entries int
	name    string // of the current entry
	left    int64  // unread bytes of the current entry
	padding int    // behind them, up to the block's end
	ended   bool
	block   [blockSize]byte
}

// next moves on to the next file. The current one must have been read to its
// end. At the end of the archive, which is also the end of r, it returns errEnd.
func (t *tarReader) next() (name string, size int64, err error) {
	if t.ended {
		return "", 0, errEnd
	}
	if t.left != 0 {
		return "", 0, malformed("%d bytes behind the end of the compressed stream", t.left)
	}
	if err := t.skipPadding(); err != nil {
		return "", 0, err
	}
	t.name = ""
	for {
		typ, err := t.header()
		if err != nil {
			return "", 0, err
		}
		if typ == tarRegular || typ == tarRegularOld {
			t.padding = int(-t.left & (blockSize - 1))
			return t.name, t.left, nil
		}
		if typ != tarDirectory {
			return "", 0, malformed("%s has type %q, want a regular file", quote(t.name), typ)
		}
		if t.left != 0 || !slices.Contains(t.dirs, t.name) {
			return "", 0, malformed("unexpected directory %s", quote(t.name))
		}
	}
}

// skipPadding reads on to the next block. No checksum covers the padding, so
// that it must be zero: it carries nothing, and damage in it is seen.
func (t *tarReader) skipPadding() error {
	padding := t.block[:t.padding]
	if err := readFull(t.r, padding, t.what); err != nil {
		return err
	}
	t.padding = 0
	if !allZero(padding) {
		return malformed("bytes in the padding behind %s", quote(t.name))
	}
	return nil
}

// Read reads from the current entry. It never returns bytes together with
// io.EOF: a decoder that takes this for its own end overlooks them.
func (t *tarReader) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, io.EOF
	}
	n, err := t.r.Read(p[:min(int64(len(p)), t.left)])
	t.left -= int64(n)
	if err == io.EOF {
		return n, malformed("unexpected end of %s", t.what)
	}
	return n, err
}

// content returns the whole current entry, which must not exceed limit bytes.
func (t *tarReader) content(limit int64) ([]byte, error) {
	if t.left > limit {
		return nil, fault(Limit, "%s has %d bytes, limit %d", quote(t.name), t.left, limit)
	}
	b := make([]byte, t.left)
	return b, readFull(t, b, t.what)
}

// header reads one entry's header, with the PAX header before it if there is
// one, sets name and left and returns the type. At the end it returns errEnd.
func (t *tarReader) header() (typ byte, err error) {
	if err := t.readBlock(); err != nil {
		return 0, err
	}
	var pax paxRecords
	if t.block[tarTypeOff] == tarPAX {
		if pax, err = t.readPAX(); err != nil {
			return 0, err
		}
		if err := t.readBlock(); errors.Is(err, errEnd) {
			return 0, malformed("PAX header without an entry")
		} else if err != nil {
			return 0, err
		}
	}
	size, err := tarNumber(t.block[tarSizeOff:tarSizeEnd])
	if err != nil {
		return 0, err
	}
	name, _, _ := bytes.Cut(t.block[:tarNameEnd], []byte{0})
	if hasPrefix(&t.block) {
		return 0, malformed("%s has a ustar name prefix", quote(string(name)))
	}
	if pax.path != nil {
		// Readers without PAX must see the beginning of the same name.
		if !isBeginning(name, pax.path) && !isBeginning(name, onlyASCII(pax.path)) {
			return 0, malformed("PAX path %s is another name than %s", quote(string(pax.path)), quote(string(name)))
		}
		name = pax.path
	}
	if pax.hasSize {
		if size != 0 && size != pax.size {
			return 0, malformed("PAX size %d and size %d differ", pax.size, size)
		}
		size = pax.size
	}
	if len(name) > maxNameSize {
		return 0, fault(Limit, "name %s has %d bytes, limit %d", quote(string(name)), len(name), maxNameSize)
	}
	if !utf8.Valid(name) {
		return 0, malformed("name %s is not UTF-8", quote(string(name)))
	}
	t.name, t.left = string(name), size
	return t.block[tarTypeOff], nil
}

// isBeginning reports whether name is as much of path as its field holds.
func isBeginning(name, path []byte) bool {
	return bytes.Equal(name, path[:min(len(path), tarNameEnd)])
}

// onlyASCII leaves out what is not ASCII. So do writers that keep such a name for
// the PAX header (source: Go, archive/tar).
func onlyASCII(path []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return -1
		}
		return r
	}, path)
}

// hasPrefix reports whether a header uses the name prefix field of POSIX. GNU
// headers ("ustar" and a blank) have two times there. If they are no times, some
// readers take them for a prefix after all (source: Go, archive/tar).
func hasPrefix(b *[blockSize]byte) bool {
	magic := b[tarMagicOff : tarMagicOff+6]
	prefix := b[tarPrefixOff:tarPrefixEnd]
	switch {
	case !bytes.HasPrefix(magic, []byte("ustar")):
		return false
	case magic[5] != ' ':
		return !allZero(prefix)
	}
	const size = tarSizeEnd - tarSizeOff // of a time, too
	return !isTime(prefix[:size]) || !isTime(prefix[size:2*size]) || !allZero(prefix[2*size:])
}

// isTime reports whether field is an unused or a numeric one.
func isTime(field []byte) bool {
	if allZero(field) {
		return true
	}
	_, err := tarNumber(field)
	return err == nil
}

// readBlock reads one header block and checks its checksum. At the end of the
// archive it returns errEnd.
func (t *tarReader) readBlock() error {
	if err := readFull(t.r, t.block[:], t.what); err != nil {
		return err
	}
	if allZero(t.block[:]) {
		return t.readEnd()
	}
	field := t.block[tarChecksumOff:tarChecksumEnd]
	want, err := strconv.ParseUint(string(bytes.TrimRight(bytes.TrimLeft(field, " "), " \x00")), 8, 32)
	sum := uint64(len(field)) * ' ' // the field itself counts as blanks
	for i, c := range t.block {
		if i < tarChecksumOff || i >= tarChecksumEnd {
			sum += uint64(c)
		}
	}
	if err != nil || want != sum {
		return malformed("not a tar header: wrong header checksum")
	}
	if t.entries++; t.entries > t.maxEntries {
		return fault(Limit, "more than %d entries in %s", t.maxEntries, t.what)
	}
	return nil
}

// readEnd has seen one zero block. It reads on to the end of the stream
// and returns errEnd if all is zero.
func (t *tarReader) readEnd() error {
	if err := readFull(t.r, t.block[:], t.what); err != nil {
		return err
	}
	for total := 0; allZero(t.block[:]); {
		n, err := t.r.Read(t.block[:])
		if err == io.EOF {
			t.ended = true
			return errEnd
		}
		if err != nil {
			return err
		}
		if total += n; total > maxTarPadding {
			return fault(Limit, "more than %d zero bytes behind the end of %s", maxTarPadding, t.what)
		}
		clear(t.block[n:])
	}
	return malformed("bytes behind the end of %s", t.what)
}

// tarNumber decodes a size: octal with a terminator, or positive base 256.
func tarNumber(field []byte) (int64, error) {
	if field[0] == 0x80 {
		var v int64
		for _, c := range field[1:] {
			if v = v<<8 | int64(c); v >= maxFileSize {
				return 0, fault(Limit, "entry size in base 256 is too large")
			}
		}
		return v, nil
	}
	digits := bytes.TrimRight(bytes.TrimLeft(field, " "), " \x00")
	if len(digits) == len(field) {
		return 0, malformed("entry size has no terminator")
	}
	v, err := strconv.ParseUint(string(digits), 8, 63)
	if err != nil {
		return 0, malformed("entry size %s is not octal", quote(string(digits)))
	}
	if v >= maxFileSize {
		return 0, fault(Limit, "entry size %d is too large", v)
	}
	return int64(v), nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
