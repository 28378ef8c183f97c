package slot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// paceEvery bounds the dirty pages that wait for a medium that is written
	// through the page cache, in bytes: two such windows at most. So the flush
	// at the end is short, and the running system keeps its page cache.
	paceEvery = 8 << 20
	// sysfs is where the kernel shows the properties of block devices.
	sysfs = "/sys"
)

// medium is what a [Writer] writes to. Offsets and buffers are aligned to
// cellSize; the length of a write may be any. ReadAt and WriteAt may be called
// at the same time, for different ranges.
type medium interface {
	// ReadAt reads from the medium, not from a cache in memory if that can be
	// avoided. It returns fewer bytes only together with an error, which is
	// io.EOF at the end of the medium.
	ReadAt(p []byte, off int64) (int, error)
	// Uncached reports whether ReadAt never reads from a cache in memory.
	Uncached() bool
	// WriteAt writes p and changes no other byte. It tells how much was written.
	WriteAt(p []byte, off int64) (int, error)
	// Zero makes n bytes read as zeros without sending them. It returns
	// errors.ErrUnsupported if it cannot, and errSent if it had to send them
	// and will have to the next time.
	Zero(off, n int64) error
	// Flush returns when all that was written survives a power cut, and drops
	// what the page cache holds of the medium.
	Flush() error
	Close() error
}

// errSent means that zeros are where they should be, but not by command.
var errSent = errors.New("the driver sends zeros itself")

// file is a medium: a block device, or a regular file that stands for one.
type file struct {
	f      *os.File // through the page cache; holds the exclusive claim
	direct *os.File // past the page cache; nil if the medium does not take that
	align  int64    // what direct needs of lengths and offsets, in bytes
	id     ID
	zeroed bool // a command to zero has been tried

	dirty   int64 // bytes since write-back was started
	started int64 // write-back was started up to here
	settled int64 // and is complete up to here
}

// openFile opens the partition. A block device is opened exclusively: the
// kernel refuses one that is mounted or in use by another driver.
func openFile(p Partition) (*file, error) {
	flags := os.O_RDWR | unix.O_CLOEXEC
	if p.ID.Block {
		flags |= unix.O_EXCL
	}
	f, err := os.OpenFile(p.Path, flags, 0)
	if err != nil {
		return nil, err
	}
	m := &file{f: f, id: p.ID}
	if err := checkID(f, p.ID); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if m.id.Block {
		m.direct, m.align = openDirect(p)
	}
	return m, nil
}

// checkID makes sure that an open file is the partition that was planned for:
// the path may name something else by now.
func checkID(f *os.File, want ID) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if id, err := volumes(sysfs).identity(st); err != nil || id != want {
		return errors.Join(errors.New("is another device than a moment ago"), err)
	}
	return nil
}

// openDirect opens the block device a second time, past the page cache, and
// tries a read. It returns nil where that does not work: then the page cache
// has to do.
func openDirect(p Partition) (*os.File, int64) {
	f, err := os.OpenFile(p.Path, os.O_RDWR|unix.O_CLOEXEC|unix.O_DIRECT, 0)
	if err != nil {
		return nil, 0
	}
	align, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if err == nil && (align <= 0 || align > cellSize || cellSize%align != 0) {
		err = errors.ErrUnsupported
	}
	if err == nil {
		err = checkID(f, p.ID)
	}
	if err == nil {
		err = probe(f)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, 0
	}
	return f, int64(align)
}

// probe reads the first cell. A medium that is shorter answers as well.
func probe(f *os.File) error {
	buf, err := unix.Mmap(-1, 0, cellSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	_, err = f.ReadAt(buf, 0)
	if errors.Is(err, unix.EIO) || errors.Is(err, io.EOF) {
		err = nil // it takes such reads; whether it works is another question
	}
	return errors.Join(err, unix.Munmap(buf))
}

func (m *file) ReadAt(p []byte, off int64) (int, error) {
	if m.direct != nil {
		return m.direct.ReadAt(p, off)
	}
	n, err := m.f.ReadAt(p, off)
	// Advice: the running system needs its page cache more than we do.
	_ = unix.Fadvise(int(m.f.Fd()), off, int64(n), unix.FADV_DONTNEED)
	return n, err
}

// Uncached is true of direct I/O: the kernel writes back and drops what its
// cache holds of a range before it reads that.
func (m *file) Uncached() bool { return m.direct != nil }

// WriteAt sends whole sectors past the page cache. The rest of the image's last
// sector goes through it, where the kernel keeps the other bytes of the sector
// as they are; a power cut leaves the sector old or new.
func (m *file) WriteAt(p []byte, off int64) (int, error) {
	if m.direct == nil {
		n, err := m.f.WriteAt(p, off)
		if err == nil {
			err = m.pace(off, int64(n))
		}
		return n, err
	}
	whole := int64(len(p)) &^ (m.align - 1)
	n := 0
	if whole > 0 {
		var err error
		if n, err = m.direct.WriteAt(p[:whole], off); err != nil {
			return n, err
		}
	}
	if whole == int64(len(p)) {
		return n, nil
	}
	more, err := m.f.WriteAt(p[whole:], off+whole)
	return n + more, err
}

// pace starts the write-back of each finished window and waits for the one
// before it. It is no flush: what is written back may still be in the medium's
// own cache.
func (m *file) pace(off, n int64) error {
	if m.dirty += n; m.dirty < paceEvery {
		return nil
	}
	m.dirty = 0
	fd, end := int(m.f.Fd()), off+n
	if err := unix.SyncFileRange(fd, m.started, end-m.started, unix.SYNC_FILE_RANGE_WRITE); err != nil {
		return err
	}
	if m.started > m.settled {
		const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		if err := unix.SyncFileRange(fd, m.settled, m.started-m.settled, wait); err != nil {
			return err
		}
		_ = unix.Fadvise(fd, m.settled, m.started-m.settled, unix.FADV_DONTNEED) // advice
	}
	m.settled, m.started = m.started, end
	return nil
}

// Zero asks the driver. The kernel drops what the page cache has of the range.
//
// A driver may find out at the first command that it cannot: a loop device over
// a file system that cannot punch holes. The kernel then sends zeros without a
// word, but takes the promise back.
func (m *file) Zero(off, n int64) error {
	if !m.id.Block {
		return errors.ErrUnsupported
	}
	if err := blkZeroOut(int(m.f.Fd()), off, n); err != nil || m.zeroed {
		return err
	}
	m.zeroed = true
	if !promisesZeroes(sysfs, m.id) {
		return errSent
	}
	return nil
}

func (m *file) Flush() error {
	if err := m.f.Sync(); err != nil {
		return err
	}
	// Both are requests: what they cannot drop is at worst verified in memory.
	if m.id.Block {
		_ = unix.IoctlSetInt(int(m.f.Fd()), unix.BLKFLSBUF, 0)
	}
	_ = unix.Fadvise(int(m.f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}

func (m *file) Close() error {
	if m.direct == nil {
		return m.f.Close()
	}
	return errors.Join(m.direct.Close(), m.f.Close())
}

// promisesZeroes reports whether the driver of a block device can zero a range
// by a command. Without it the kernel would send the zeros, and it is cheaper to
// compare first (source: Linux, Documentation/ABI/stable/sysfs-block).
func promisesZeroes(sys string, id ID) bool {
	if !id.Block {
		return false
	}
	dir := fmt.Sprintf("%s/dev/block/%d:%d/", sys, unix.Major(id.Dev), unix.Minor(id.Dev))
	// A partition has no queue of its own. The kernel follows the link before
	// it goes up, so the path must not be cleaned.
	for _, queue := range []string{"queue", "../queue"} {
		b, err := os.ReadFile(dir + queue + "/write_zeroes_max_bytes")
		if err != nil {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		return err == nil && n > 0
	}
	return false
}
