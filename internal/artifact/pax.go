package artifact

import (
	"bytes"
	"slices"
	"strconv"
)

// paxRecords are the records of a PAX header that mean something here.
type paxRecords struct {
	path    []byte // nil: not given
	size    int64
	hasSize bool
}

// paxKeys are the records that may occur. Any other could change what an entry
// means to another reader (linkpath, GNU.sparse.*, charset).
var paxKeys = []string{"path", "size", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname"}

// readPAX reads the content of the PAX header whose block has just been read.
func (t *tarReader) readPAX() (paxRecords, error) {
	size, err := tarNumber(t.block[tarSizeOff:tarSizeEnd])
	if err != nil {
		return paxRecords{}, err
	}
	if size > maxPAXSize {
		return paxRecords{}, fault(Limit, "PAX header has %d bytes, limit %d", size, maxPAXSize)
	}
	b := make([]byte, (size+blockSize-1)&^(blockSize-1))
	if err := readFull(t.r, b, t.what); err != nil {
		return paxRecords{}, err
	}
	if !allZero(b[size:]) {
		return paxRecords{}, malformed("bytes in the padding behind a PAX header")
	}
	return parsePAX(b[:size])
}

// parsePAX decodes "LENGTH KEY=VALUE\n" records; LENGTH counts itself too.
func parsePAX(b []byte) (paxRecords, error) {
	var p paxRecords
	var seen []string
	for len(b) > 0 {
		record, rest, ok := cutRecord(b)
		key, value, found := bytes.Cut(record, []byte("="))
		if !ok || !found {
			return p, malformed("malformed PAX record")
		}
		b = rest
		k := string(key)
		if !slices.Contains(paxKeys, k) {
			return p, malformed("PAX record %s is not allowed", quote(k))
		}
		if slices.Contains(seen, k) {
			return p, malformed("PAX record %s occurs twice", quote(k))
		}
		seen = append(seen, k)
		switch k {
		case "path":
			if len(value) == 0 || bytes.IndexByte(value, 0) >= 0 {
				return p, malformed("malformed PAX path")
			}
			p.path = value
		case "size":
			n, err := strconv.ParseUint(string(value), 10, 63)
			if err != nil || n >= maxFileSize {
				return p, malformed("PAX size %s is not a possible size", quote(string(value)))
			}
			p.size, p.hasSize = int64(n), true
		}
	}
	return p, nil
}

// cutRecord splits the first record off b and returns it without length and
// line end.
func cutRecord(b []byte) (record, rest []byte, ok bool) {
	digits, _, found := bytes.Cut(b[:min(len(b), 10)], []byte(" "))
	n, err := strconv.ParseUint(string(digits), 10, 31)
	if !found || err != nil || digits[0] == '0' || n <= uint64(len(digits))+1 || n > uint64(len(b)) {
		return nil, nil, false
	}
	record, rest = b[len(digits)+1:n], b[n:]
	record, ok = bytes.CutSuffix(record, []byte("\n"))
	return record, rest, ok
}
