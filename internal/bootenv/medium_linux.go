package bootenv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// medium is one copy's bytes on its storage; byte 0 is the first of the copy.
// Sync returns when all earlier writes are durable, and makes later reads come
// from the storage as far as the kernel allows.
type medium interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Place() place
	Close() error
}

// place is where a medium is.
type place struct {
	id      string // the same for two names of one file or device
	path    string // without symbolic links
	offset  int64  // never negative
	replace bool   // a regular file that a rename replaces in one step
}

// rawFlash are the names of storage that needs erasing: other rules apply.
// mtdblock is among them because it erases behind the writer's back, which
// loses both copies if they share a block.
var rawFlash = [...]string{"/dev/mtd", "/dev/ubi"}

func isRawFlash(path string) bool {
	for _, prefix := range rawFlash {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// file is a medium in a regular file or on a block device.
type file struct {
	f     *os.File
	size  int64 // of the copy
	place place
	close func() error // undoes what opening changed
}

// openFile opens the copy, for writing if write is set. On a block device that
// the kernel protects, such as an eMMC boot partition, writing needs the
// protection lifted; Close restores it. Paths below sysfs say how.
func openFile(sysfs string, c Copy, write bool) (_ medium, err error) {
	if isRawFlash(c.Path) {
		return nil, fmt.Errorf("raw flash: %w", ErrUnsupported)
	}
	path, err := filepath.EvalSymlinks(c.Path)
	if err != nil {
		return nil, notFound(err)
	}
	m := &file{size: int64(c.Size), close: func() error { return nil }}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, notFound(err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		m.place.id = fmt.Sprintf("file %d:%d", st.Dev, st.Ino)
		m.place.replace = st.Size <= maxReplace && canReplace(path)
	case unix.S_IFBLK:
		m.place.id = fmt.Sprintf("block %d", st.Rdev)
		if write {
			if m.close, err = liftForceRO(forceRO(sysfs, st.Rdev)); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("neither a file nor a block device: %w", ErrUnsupported)
	}
	if isRawFlash(path) {
		return nil, fmt.Errorf("raw flash: %w", ErrUnsupported)
	}
	m.place.path = path
	if err := m.open(c.Offset, write); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

func (m *file) open(offset int64, write bool) error {
	mode := os.O_RDONLY
	if write {
		mode = os.O_RDWR
	}
	f, err := os.OpenFile(m.place.path, mode|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return notFound(err)
	}
	if offset < 0 {
		end, err := f.Seek(0, io.SeekEnd)
		if err == nil && end+offset < 0 {
			err = fmt.Errorf("offset -0x%x is before the start, the size is 0x%x", -offset, end)
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
		offset += end
	}
	m.f, m.place.offset = f, offset
	return nil
}

func (m *file) ReadAt(p []byte, off int64) (int, error) { return m.f.ReadAt(p, m.place.offset+off) }

func (m *file) WriteAt(p []byte, off int64) (int, error) { return m.f.WriteAt(p, m.place.offset+off) }
func (m *file) Place() place                             { return m.place }
func (m *file) Close() error                             { return errors.Join(m.f.Close(), m.close()) }

// Sync flushes and drops the cached pages. The kernel keeps pages after a
// failed flush although the storage does not have them; reading those back
// would prove nothing. Dropping is done for the copy's own pages only:
// BLKFLSBUF would do so for the whole device, and empties a RAM disk.
func (m *file) Sync() error {
	if err := m.f.Sync(); err != nil {
		return err
	}
	page := int64(os.Getpagesize())
	start := m.place.offset / page * page
	end := (m.place.offset + m.size + page - 1) / page * page
	// Advice only. File systems without a cache to drop refuse it.
	_ = unix.Fadvise(int(m.f.Fd()), start, end-start, unix.FADV_DONTNEED)
	return nil
}

// canReplace tells whether a rename over path is one step that a power cut
// cannot split. On FAT it is not.
func canReplace(path string) bool {
	const exfatMagic = 0x2011bab0 // source: Linux, include/uapi/linux/magic.h
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return false
	}
	return st.Type != unix.MSDOS_SUPER_MAGIC && st.Type != exfatMagic
}

// forceRO returns the file that protects a block device (source: Linux,
// Documentation/driver-api/mmc/mmc-dev-parts.rst).
func forceRO(sysfs string, rdev uint64) string {
	dev := fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev))
	return filepath.Join(sysfs, "dev", "block", dev, "force_ro")
}

// liftForceRO lifts the protection at path and returns the function that
// restores it. Most devices have no such file.
func liftForceRO(path string) (restore func() error, err error) {
	none := func() error { return nil }
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return nil, err
	}
	old := make([]byte, 8)
	n, err := f.Read(old)
	if err := errors.Join(ignoreEOF(err), f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	old = bytes.TrimSpace(old[:n])
	if len(old) == 0 || string(old) == "0" {
		return none, nil
	}
	if err := writeAttr(path, "0"); err != nil {
		return nil, err
	}
	return func() error { return writeAttr(path, string(old)) }, nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// writeAttr writes a file of sysfs. It neither creates nor truncates.
func writeAttr(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
