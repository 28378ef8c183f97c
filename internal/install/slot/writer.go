package slot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// blockSize is how much is compared and written at a time, in bytes. It is
	// a multiple of every erase block that eMMC and SD cards are known to use
	// for small writes, and small enough to keep two of them in memory.
	blockSize = 1 << 20
	// flushEvery bounds the dirty pages that wait for the medium, in bytes, so
	// that the flush at the end is short and the running system keeps its
	// page cache.
	flushEvery = 8 << 20
)

// ErrMismatch means that the medium does not hold what was written.
var ErrMismatch = errors.New("read back differs from what was written")

// Stats says what a [Writer] did, in bytes.
type Stats struct {
	Written int64 // differed, so was written
	Skipped int64 // was right already
}

// Writer writes an image from the beginning of a partition on. It is not safe
// for concurrent use.
type Writer struct {
	part    Partition
	f       *os.File
	buf     []byte // not yet compared, at offset off
	old     []byte // what the medium holds there
	off     int64
	flushed int64 // write-back was started up to here
	settled int64 // write-back is complete up to here
	stats   Stats
}

// OpenWriter opens the partition for writing. A block device is opened
// exclusively: the kernel refuses one that is mounted or in use by another
// driver. Nothing is written yet.
func OpenWriter(p Partition) (*Writer, error) {
	flags := os.O_RDWR | unix.O_CLOEXEC
	if p.ID.Block {
		flags |= unix.O_EXCL
	}
	f, err := os.OpenFile(p.Path, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open slot %s: %w", p.Path, cause(err))
	}
	w := &Writer{part: p, f: f, buf: make([]byte, 0, blockSize), old: make([]byte, blockSize)}
	if err := w.check(); err != nil {
		return nil, errors.Join(fmt.Errorf("open slot %s: %w", p.Path, err), f.Close())
	}
	return w, nil
}

// check makes sure that the open file is the partition that was planned for:
// the path may name something else by now.
func (w *Writer) check() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(w.f.Fd()), &st); err != nil {
		return err
	}
	id := ID{Dev: st.Dev, Inode: st.Ino}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		id = ID{Block: true, Dev: st.Rdev}
	}
	if id != w.part.ID {
		return errors.New("is another device than a moment ago")
	}
	return nil
}

// Write takes the next bytes of the image. It returns an error that wraps
// ENOSPC, having written nothing of p, when they do not fit.
func (w *Writer) Write(p []byte) (int, error) {
	if w.off+int64(len(w.buf)+len(p)) > w.part.Size {
		return 0, fmt.Errorf("write slot %s: image is larger than its %d bytes: %w", w.part.Path, w.part.Size, unix.ENOSPC)
	}
	taken := 0
	for len(p) > 0 {
		n := min(len(p), blockSize-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		p, taken = p[n:], taken+n
		if len(w.buf) == blockSize {
			if err := w.flushBlock(); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}

// flushBlock brings the medium's bytes at w.off to w.buf's.
func (w *Writer) flushBlock() error {
	n := len(w.buf)
	old := w.old[:n]
	got, err := w.f.ReadAt(old, w.off)
	if err != nil && !errors.Is(err, io.EOF) {
		got = 0 // a block that cannot be read may still be writable: the read back decides
	}
	if got == n && bytes.Equal(old, w.buf) {
		w.stats.Skipped += int64(n)
	} else {
		if _, err := w.f.WriteAt(w.buf, w.off); err != nil {
			return fmt.Errorf("write slot %s offset %d: %w", w.part.Path, w.off, cause(err))
		}
		w.stats.Written += int64(n)
	}
	w.off += int64(n)
	w.buf = w.buf[:0]
	return w.pace()
}

// pace starts the write-back of each finished window and waits for the one
// before it, so that two windows at most are dirty.
func (w *Writer) pace() error {
	if w.off-w.flushed < flushEvery {
		return nil
	}
	fd := int(w.f.Fd())
	if err := unix.SyncFileRange(fd, w.flushed, w.off-w.flushed, unix.SYNC_FILE_RANGE_WRITE); err != nil {
		return fmt.Errorf("write slot %s offset %d: %w", w.part.Path, w.flushed, err)
	}
	if w.flushed > w.settled {
		const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		if err := unix.SyncFileRange(fd, w.settled, w.flushed-w.settled, wait); err != nil {
			return fmt.Errorf("write slot %s offset %d: %w", w.part.Path, w.settled, err)
		}
		// Advice: the running system needs its page cache more than we do.
		_ = unix.Fadvise(fd, w.settled, w.flushed-w.settled, unix.FADV_DONTNEED)
	}
	w.settled, w.flushed = w.flushed, w.off
	return nil
}

// Sync writes what is buffered and waits until the medium has it all.
func (w *Writer) Sync() error {
	if len(w.buf) > 0 {
		if err := w.flushBlock(); err != nil {
			return err
		}
	}
	if err := w.f.Sync(); err != nil {
		return fmt.Errorf("sync slot %s: %w", w.part.Path, cause(err))
	}
	return nil
}

// Verify reads the image back from the medium and compares its SHA-256 with
// want. It is called after [Writer.Sync]. A difference is [ErrMismatch].
func (w *Writer) Verify(ctx context.Context, want [sha256.Size]byte) error {
	w.dropCache()
	h := sha256.New()
	for off := int64(0); off < w.off; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("verify slot %s: %w", w.part.Path, context.Cause(ctx))
		}
		n := min(w.off-off, blockSize)
		if _, err := w.f.ReadAt(w.old[:n], off); err != nil {
			return fmt.Errorf("verify slot %s offset %d: %w", w.part.Path, off, cause(err))
		}
		h.Write(w.old[:n])
		_ = unix.Fadvise(int(w.f.Fd()), off, n, unix.FADV_DONTNEED) // advice
		off += n
	}
	if got := [sha256.Size]byte(h.Sum(nil)); got != want {
		return fmt.Errorf("verify slot %s: %w: sha256 %x, want %x", w.part.Path, ErrMismatch, got, want)
	}
	return nil
}

// dropCache makes the next reads come from the medium. Both calls are
// requests: what they cannot drop is at worst verified in memory.
func (w *Writer) dropCache() {
	fd := int(w.f.Fd())
	if w.part.ID.Block {
		_ = unix.IoctlSetInt(fd, unix.BLKFLSBUF, 0)
	}
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
}

// Stats returns what was done so far.
func (w *Writer) Stats() Stats { return w.stats }

// Close ends the writing. What was not synced may be lost.
func (w *Writer) Close() error {
	if err := w.f.Close(); err != nil {
		return fmt.Errorf("close slot %s: %w", w.part.Path, cause(err))
	}
	return nil
}
