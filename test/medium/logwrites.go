package medium

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The log of the kernel's dm-log-writes (source: Linux,
// drivers/md/dm-log-writes.c): a sector with the head, then for each entry a
// sector that describes it and, if it is not a discard, its data. A sector has
// the size that the head tells. An entry stands in the log when it is durable: a
// flush stands behind the writes that it flushed, a write with FUA may stand
// before older ones that were not flushed yet.
const (
	logMagic   = 0x6a736677736872
	logVersion = 1

	logFlush   = 1 << 0
	logFUA     = 1 << 1
	logDiscard = 1 << 2
	logMark    = 1 << 3
)

// maxLogSector bounds the size of a sector, in bytes.
const maxLogSector = 64 << 10

// errLog means that the log is not one of dm-log-writes.
var errLog = errors.New("not a log of dm-log-writes")

// ReadLog returns the trace that the kernel's dm-log-writes has logged of a disk
// that was as start when the log began.
func ReadLog(log io.ReaderAt, start *Image, unit Unit) (*Trace, error) {
	head := make([]byte, 28)
	if _, err := log.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("head of the log: %w", err)
	}
	le := binary.LittleEndian
	count, sector := le.Uint64(head[16:]), int64(le.Uint32(head[24:]))
	if le.Uint64(head) != logMagic || le.Uint64(head[8:]) != logVersion || sector < SectorSize || sector > maxLogSector {
		return nil, errLog
	}
	t := NewTrace(start, unit)
	at := sector
	for n := range count {
		entry := make([]byte, 32)
		if _, err := log.ReadAt(entry, at); err != nil {
			return nil, fmt.Errorf("entry %d of the log: %w", n, err)
		}
		at += sector
		off, length, flags := le.Uint64(entry), le.Uint64(entry[8:]), le.Uint64(entry[16:])
		if size := uint64(start.Size() / sector); off > size || length > size-off { //nolint:gosec // not negative
			return nil, fmt.Errorf("entry %d of the log: %d sectors at %d: %w", n, length, off, errLog)
		}
		e := Entry{Off: int64(off) * sector, Length: int64(length) * sector, FUA: flags&logFUA != 0} //nolint:gosec // bounded above
		if flags&logFlush != 0 {
			t.Add(Entry{Flush: true})
		}
		if e.Length == 0 || flags&logMark != 0 {
			continue
		}
		if flags&logDiscard == 0 {
			e.Data = make([]byte, e.Length)
			if _, err := log.ReadAt(e.Data, at); err != nil {
				return nil, fmt.Errorf("data of entry %d of the log: %w", n, err)
			}
			at += e.Length
		}
		t.Add(e)
	}
	return t, nil
}
