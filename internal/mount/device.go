package mount

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/mountinfo"
)

const (
	// maxStack bounds how deep device mapper and md devices are stacked, and
	// maxDisks how many disks they are spread over.
	maxStack = 8
	maxDisks = 64

	maxAttr = 64 // bytes read from a sysfs attribute
)

var errNotBlockDevice = errors.New("not a block device")

// sysfs is the directory where sysfs is mounted.
type sysfs string

// blockDevice is a block device that is open for reading.
type blockDevice struct {
	file   *os.File
	name   string // the kernel's, sda1
	number uint64
}

// openDevice opens a block device by kernel name, or by path if dev holds a
// slash, and makes sure that what it opened has the number that it looked up.
func (s sysfs) openDevice(dev string) (*blockDevice, error) {
	want, err := s.lookUp(dev)
	if err != nil {
		return nil, err
	}
	file := dev
	if !strings.Contains(dev, "/") {
		// (source: Linux, drivers/base/core.c, device_get_devnode)
		file = "/dev/" + strings.ReplaceAll(dev, "!", "/")
		if _, err := numberOf(file); err != nil { // anything but a block device is not even opened
			return nil, err
		}
	}
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	blk, err := s.identify(f, want)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return blk, nil
}

// lookUp finds the number of a block device by kernel name, or by path if dev
// holds a slash.
func (s sysfs) lookUp(dev string) (uint64, error) {
	if strings.Contains(dev, "/") {
		return numberOf(dev)
	}
	if !isKernelName(dev) {
		return 0, errors.New("not a kernel name of a block device")
	}
	return s.number(filepath.Join(string(s), "class/block", dev))
}

// numberOf returns the number of the block device whose node is at path.
func numberOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, errNotBlockDevice
	}
	return uint64(st.Rdev), nil // 32 bits wide on some architectures
}

// identify finds the number and the kernel's name of the open device f. If want
// is not 0, the number must be that.
func (s sysfs) identify(f *os.File, want uint64) (*blockDevice, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	number := uint64(st.Rdev) // 32 bits wide on some architectures
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, errNotBlockDevice
	}
	if want != 0 && number != want {
		return nil, fmt.Errorf("device node is %s, kernel says %s", numberString(number), numberString(want))
	}
	dir, err := s.directory(number)
	if err != nil {
		return nil, err
	}
	return &blockDevice{file: f, name: filepath.Base(dir), number: number}, nil
}

// isKernelName reports whether name is made of what kernel names of disks are
// made of, so that it can be part of a path. The kernel writes ! for a slash.
func isKernelName(name string) bool {
	if name == "" {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '!' {
			return false
		}
	}
	return true
}

// number returns the device number of a device directory in sysfs.
func (s sysfs) number(dir string) (uint64, error) {
	text, err := readAttr(filepath.Join(dir, "dev"))
	if err != nil {
		return 0, err
	}
	return mountinfo.ParseNumber(text)
}

// readAttr returns the text of an attribute in sysfs, without the space around.
func readAttr(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // read only
	text, err := io.ReadAll(io.LimitReader(f, maxAttr))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

// directory returns the directory of device number dev in sysfs, without
// symbolic links, which makes it the identity of the device.
func (s sysfs) directory(dev uint64) (string, error) {
	return filepath.EvalSymlinks(filepath.Join(string(s), "dev/block", numberString(dev)))
}

// checkProtected returns ErrProtected if dev is on a disk that one of protected
// is on, too.
func (s sysfs) checkProtected(dev uint64, protected []uint64) error {
	if len(protected) == 0 {
		return nil
	}
	mine, err := s.disks(dev)
	if err != nil {
		return err
	}
	for _, p := range protected {
		theirs, err := s.disks(p)
		if err != nil {
			return fmt.Errorf("protected device %s: %w", numberString(p), err)
		}
		for disk := range maps.Keys(theirs) {
			if mine[disk] {
				return fmt.Errorf("%w: %s, with %s", ErrProtected, filepath.Base(disk), numberString(p))
			}
		}
	}
	return nil
}

// disks returns the directories of the whole disks that dev is made of: its own
// and those below it, if dev is a device mapper or md device.
func (s sysfs) disks(dev uint64) (map[string]bool, error) {
	dir, err := s.directory(dev)
	if err != nil {
		return nil, err
	}
	found := make(map[string]bool)
	return found, addDisks(found, dir, 0)
}

func addDisks(found map[string]bool, dir string, depth int) error {
	if depth > maxStack || len(found) > maxDisks {
		return errors.New("too many devices below it")
	}
	switch _, err := os.Stat(filepath.Join(dir, "partition")); {
	case err == nil:
		dir = filepath.Dir(dir) // a partition is a directory of its disk
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	if found[dir] {
		return nil
	}
	found[dir] = true
	slaves, err := os.ReadDir(filepath.Join(dir, "slaves"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, slave := range slaves {
		below, err := filepath.EvalSymlinks(filepath.Join(dir, "slaves", slave.Name()))
		if err != nil {
			return err
		}
		if err := addDisks(found, below, depth+1); err != nil {
			return err
		}
	}
	return nil
}
