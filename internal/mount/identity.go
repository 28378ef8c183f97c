package mount

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrGone reports a stick that was pulled out, or whose medium was changed,
// after it was opened. Another one may have the same name and number by then.
var ErrGone = errors.New("stick was pulled out or changed")

// identity tells one appearance of a block device from the next one of the
// same name and number.
type identity struct {
	dir      string // in sysfs
	inode    uint64 // of dir: sysfs makes a new one for each appearance
	sequence uint64 // of the disk, for each medium; 0 before Linux 5.15
}

// identityOf describes the device number now. It returns [ErrGone] if there is
// no such device.
func (s sysfs) identityOf(number uint64) (identity, error) {
	id, err := s.readIdentity(number)
	// An attribute of a device that is just being removed is there, and cannot
	// be read any more.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return identity{}, ErrGone
	}
	return id, err
}

func (s sysfs) readIdentity(number uint64) (identity, error) {
	dir, err := s.directory(number)
	if err != nil {
		return identity{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return identity{}, fmt.Errorf("stat: %w", err)
	}
	disk := dir
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		disk = filepath.Dir(dir)
	}
	id := identity{dir: dir, inode: st.Ino}
	// (source: Linux, Documentation/ABI/stable/sysfs-block, "diskseq")
	text, err := readAttr(filepath.Join(disk, "diskseq"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); err != nil {
			return identity{}, err
		}
		return id, nil
	}
	if err != nil {
		return identity{}, err
	}
	if id.sequence, err = strconv.ParseUint(text, 10, 64); err != nil {
		return identity{}, fmt.Errorf("diskseq is %.64q", text)
	}
	return id, nil
}

// sequenceOf asks the open device itself which medium it is, 0 where the
// kernel does not number them.
func sequenceOf(f *os.File) (uint64, error) {
	var n uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKGETDISKSEQ, uintptr(unsafe.Pointer(&n)))
	if errno == unix.ENOTTY || errno == unix.EINVAL { // before Linux 5.15
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("disk sequence number: %w", errno)
	}
	return n, nil
}

// identifyOpen returns the identity of the open device. What is open and what
// sysfs shows under its number must be the same.
func (s sysfs) identifyOpen(blk *blockDevice) (identity, error) {
	id, err := s.identityOf(blk.number)
	if err != nil {
		return identity{}, fmt.Errorf("%s: %w", blk.name, err)
	}
	sequence, err := sequenceOf(blk.file)
	if err != nil {
		return identity{}, fmt.Errorf("%s: %w", blk.name, err)
	}
	if sequence != 0 && sequence != id.sequence {
		return identity{}, fmt.Errorf("%s: %w", blk.name, ErrGone)
	}
	return id, nil
}

// Check returns [ErrGone] if the stick is not there any more: it was pulled
// out, or another medium is in its reader. It asks the kernel and not the
// stick, so it returns at once. It may be called by another goroutine than the
// one that reads. A directory is always there.
func (s *Stick) Check() error {
	if s.Dev == 0 {
		return nil
	}
	return s.sys.checkIdentity(s.Name, s.Dev, s.id)
}

// Sequence is the kernel's number of the medium, which tells one insertion from
// the next of the same boot; 0 for a directory, and before Linux 5.15.
func (s *Stick) Sequence() uint64 { return s.id.sequence }

// checkIdentity returns [ErrGone] if the device number is not what id says.
func (s sysfs) checkIdentity(name string, number uint64, id identity) error {
	now, err := s.identityOf(number)
	if err == nil && now != id {
		err = ErrGone
	}
	if err != nil {
		return fmt.Errorf("stick %.64q: %w", name, err)
	}
	return nil
}

// maxAppearances bounds the block devices that Appearances looks at.
const maxAppearances = 1024

// Appearances names the appearances of all block devices that are there now. A
// stick that is plugged in again, and another card in a reader, has another name.
// The names hold for one boot. sysfs is usually "/sys".
func Appearances(root string) ([]string, error) {
	dir, err := os.Open(filepath.Join(root, "dev/block"))
	if err != nil {
		return nil, err
	}
	defer dir.Close() // read only
	numbers, err := dir.Readdirnames(maxAppearances)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var names []string
	for _, text := range numbers {
		var major, minor uint32
		if _, err := fmt.Sscanf(text, "%d:%d", &major, &minor); err != nil {
			return nil, fmt.Errorf("block device %.64q: not a number", text)
		}
		id, err := sysfs(root).identityOf(unix.Mkdev(major, minor))
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("block device %.64q: %w", text, err)
		}
		names = append(names, id.String())
	}
	return names, nil
}

// Appearance is the stick's name in the terms of [Appearances], "" for a directory.
func (s *Stick) Appearance() string {
	if s.Dev == 0 {
		return ""
	}
	return s.id.String()
}

// String is one line: the kernel's names are in dir.
func (id identity) String() string { return fmt.Sprintf("%s %d %d", id.dir, id.inode, id.sequence) }

// Presence returns a function that does for dev what [Stick.Check] does for a
// stick that was opened. A stick that cannot be opened can be pulled out, too.
// dev and opts are as for [Open]. Nothing is opened.
func Presence(dev string, opts Options) (func() error, error) {
	sys := opts.sysfs()
	number, err := sys.lookUp(dev)
	if err != nil {
		return nil, fmt.Errorf("stick %.64q: %w", dev, err)
	}
	id, err := sys.identityOf(number)
	if err != nil {
		return nil, fmt.Errorf("stick %.64q: %w", dev, err)
	}
	return func() error { return sys.checkIdentity(dev, number, id) }, nil
}
