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

var (
	// ErrNumber means that a partition number cannot be told from a device.
	ErrNumber = errors.New("no partition number")
	// ErrUBI means that a slot is a volume on raw flash: it takes other calls
	// than a block device, and this package has none of them.
	ErrUBI = errors.New("UBI volumes are not supported")
)

// ID identifies a partition whatever it is called: the device number of a
// block device, or the file system and inode of a file.
type ID struct {
	Block bool
	Dev   uint64 // device number of the block device, or of the file's file system
	Inode uint64 // 0 for a block device
}

// Partition is one root slot as the kernel shows it.
type Partition struct {
	Path   string // as configured
	Number int    // partition number as the boot loader counts it, 1-based
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
	p, err := find(path, opts)
	if err != nil {
		return Partition{}, fmt.Errorf("root partition %s: %w", path, cause(err))
	}
	return p, nil
}

func find(path string, opts Options) (Partition, error) {
	if strings.HasPrefix(filepath.Base(path), "ubi") {
		return Partition{}, ErrUBI
	}
	id, err := Identify(path)
	if err != nil {
		return Partition{}, err
	}
	if !id.Block && !opts.AllowFile {
		return Partition{}, errors.New("not a block device")
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

// Identify tells which block device or regular file path names.
func Identify(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return ID{Block: true, Dev: st.Rdev}, nil
	case unix.S_IFREG:
		return ID{Dev: st.Dev, Inode: st.Ino}, nil
	default:
		return ID{}, errors.New("neither a block device nor a regular file")
	}
}

// partitionNumber prefers what the kernel says; a device that is no partition
// (a loop device, a simulated one) is numbered by the digits that end its
// name, as Mender's clients do.
func partitionNumber(path string, id ID, sysfs string) (int, error) {
	if id.Block {
		if sysfs == "" {
			sysfs = "/sys"
		}
		name := fmt.Sprintf("%s/dev/block/%d:%d/partition", sysfs, unix.Major(id.Dev), unix.Minor(id.Dev))
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
