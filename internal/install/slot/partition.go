package slot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNumber means that a partition number cannot be told from a device.
var ErrNumber = errors.New("no partition number")

// ID identifies a partition whatever it is called: the device number of a
// block device or of a UBI volume, or the file system and inode of a file.
type ID struct {
	Block bool
	UBI   bool   // a volume on raw flash: its character device
	Dev   uint64 // device number, or that of the file's file system
	Inode uint64 // of a file, else 0
}

// Partition is one root slot as the kernel shows it: a partition or a UBI
// volume.
type Partition struct {
	Path   string // as configured
	Number int    // as the boot loader counts: partitions from 1, volumes from 0
	ID     ID
	Size   int64 // bytes
}

// Options says what may be a slot.
type Options struct {
	// AllowFile accepts a regular file: a simulated device.
	AllowFile bool
	// Sysfs is where sysfs is mounted; "" means /sys.
	Sysfs string
}

// Find looks up the partition at path, following links. It opens the device
// for reading only and writes nothing.
func Find(path string, opts Options) (Partition, error) {
	if opts.Sysfs == "" {
		opts.Sysfs = sysfs
	}
	p, err := find(path, opts)
	if err != nil {
		return Partition{}, fmt.Errorf("root partition %s: %w", path, cause(err))
	}
	return p, nil
}

func find(path string, opts Options) (Partition, error) {
	id, err := volumes(opts.Sysfs).identify(path)
	if err != nil {
		return Partition{}, err
	}
	return found(path, id, opts)
}

func found(path string, id ID, opts Options) (Partition, error) {
	u := volumes(opts.Sysfs)
	switch {
	case id.UBI:
		return u.find(path, id)
	case !id.Block && !opts.AllowFile:
		return Partition{}, errors.New("not a block device")
	case id.Block:
		if _, ok, err := u.below(opts.Sysfs, id.Dev); err != nil || ok {
			return Partition{}, errors.Join(err, errors.New("a UBI volume for reading only: name the volume itself, such as ubi0_1"))
		}
	}
	number, err := partitionNumber(path, id, opts.Sysfs)
	if err != nil {
		return Partition{}, err
	}
	size, err := sizeOf(path)
	if err != nil {
		return Partition{}, err
	}
	return Partition{Path: path, Number: number, ID: id, Size: size}, nil
}

// Identify tells which block device, UBI volume or regular file path names.
func Identify(path string) (ID, error) { return volumes(sysfs).identify(path) }

func (u ubi) identify(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return u.identity(st)
}

// identity is that of the file or device that st describes.
func (u ubi) identity(st unix.Stat_t) (ID, error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return ID{Block: true, Dev: st.Rdev}, nil
	case unix.S_IFREG:
		return ID{Dev: st.Dev, Inode: st.Ino}, nil
	case unix.S_IFCHR:
		_, err := u.name(st.Rdev)
		return ID{UBI: true, Dev: st.Rdev}, err
	default:
		return ID{}, errors.New("neither a block device, nor a UBI volume, nor a regular file")
	}
}

// partitionNumber prefers what the kernel says; a device that is no partition
// (a loop device, a simulated one) is numbered by the digits that end its
// name, as Mender's clients do.
func partitionNumber(path string, id ID, sys string) (int, error) {
	if id.Block {
		name := fmt.Sprintf("%s/dev/block/%d:%d/partition", sys, unix.Major(id.Dev), unix.Minor(id.Dev))
		if b, err := os.ReadFile(name); err == nil {
			if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n > 0 {
				return n, nil
			}
		}
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return 0, err
	}
	base := filepath.Base(real)
	digits := base[len(strings.TrimRight(base, "0123456789")):]
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("%w in the name %q", ErrNumber, base)
	}
	return n, nil
}

func sizeOf(path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	size, err := f.Seek(0, io.SeekEnd) // the size of a block device, too
	return size, errors.Join(err, f.Close())
}

// cause drops the path that the os package puts into an error, because the
// caller names it.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}
