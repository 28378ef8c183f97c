package slot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/mountinfo"
)

// errNoVolume means that a name is not one of a UBI volume that is there.
var errNoVolume = errors.New("no such UBI volume")

// maxAttr bounds what is read of an attribute in sysfs, in bytes: a volume's
// name has up to 127 (source: Linux, include/uapi/mtd/ubi-user.h).
const maxAttr = 256

// ubi is the directory in which the kernel shows UBI devices and volumes
// (source: Linux, Documentation/ABI/stable/sysfs-class-ubi).
type ubi string

// volumes returns that directory; sys is where sysfs is mounted.
func volumes(sys string) ubi { return ubi(filepath.Join(sys, "class/ubi")) }

// volumeName decodes "ubi0_1": device 0, volume 1.
func volumeName(name string) (device, volume int, ok bool) {
	rest, isUBI := strings.CutPrefix(name, "ubi")
	d, v, both := strings.Cut(rest, "_")
	device, err1 := decimal(d)
	volume, err2 := decimal(v)
	return device, volume, isUBI && both && err1 == nil && err2 == nil
}

// decimal decodes a number as the kernel prints it: no sign, no leading zero.
func decimal(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err == nil && strconv.FormatUint(n, 10) != s {
		err = strconv.ErrSyntax
	}
	return int(n), err
}

// attr returns what is in an attribute of a volume.
func (u ubi) attr(name, attr string) (string, error) {
	path := filepath.Join(string(u), name, attr)
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b [maxAttr]byte
	n, err := f.Read(b[:])
	if n == 0 && err != nil {
		return "", fmt.Errorf("read %s: %w", path, cause(err))
	}
	return strings.TrimSuffix(string(b[:n]), "\n"), nil
}

func (u ubi) number(name, attr string) (int64, error) {
	text, err := u.attr(name, attr)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("volume %s: %s is %.64q, not a number", name, attr, text)
	}
	return n, nil
}

// id returns the identity of a volume by its name, "ubi0_1".
func (u ubi) id(name string) (ID, error) {
	text, err := u.attr(name, "dev")
	if errors.Is(err, os.ErrNotExist) {
		return ID{}, fmt.Errorf("%s: %w", name, errNoVolume)
	}
	if err != nil {
		return ID{}, err
	}
	dev, err := mountinfo.ParseNumber(text)
	return ID{UBI: true, Dev: dev}, err
}

// names returns the names of all volumes.
func (u ubi) names() ([]string, error) {
	entries, err := os.ReadDir(string(u))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // no UBI in this kernel
	}
	var names []string
	for _, e := range entries {
		if _, _, ok := volumeName(e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// name returns the name of the volume whose character device has the number.
func (u ubi) name(dev uint64) (string, error) {
	names, err := u.names()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		id, err := u.id(name)
		if err != nil {
			return "", err
		}
		if id.Dev == dev {
			return name, nil
		}
	}
	return "", fmt.Errorf("character device %d:%d: %w", unix.Major(dev), unix.Minor(dev), errNoVolume)
}

// find returns the slot on a volume. Its size is all that fits, whatever the
// volume holds now.
func (u ubi) find(path string, id ID) (Partition, error) {
	name, err := u.name(id.Dev)
	if err != nil {
		return Partition{}, err
	}
	blocks, err1 := u.number(name, "reserved_ebs")
	block, err2 := u.number(name, "usable_eb_size")
	if err := errors.Join(err1, err2); err != nil {
		return Partition{}, err
	}
	_, volume, _ := volumeName(name)
	return Partition{Path: path, Number: volume, ID: id, Size: blocks * block}, nil
}

// mounted returns the volume that UBIFS, and the kernel's root=, means by a
// source (source: Linux, fs/ubifs/super.c):
//
//	ubi0_1                     device 0, volume 1
//	ubi1                       device 0, volume 1
//	ubi0:name, ubi0!name       device 0, the volume of that name
//	ubi:name, ubi!name         the same
//	/dev/ubi0_1                the volume of that character device
//
// dir is the root directory that a path is below.
func (u ubi) mounted(source, dir string) (ID, error) {
	if strings.HasPrefix(source, "/") {
		id, err := u.identify(filepath.Join(dir, source))
		if err == nil && !id.UBI {
			err = errNoVolume
		}
		return id, err
	}
	rest, ok := strings.CutPrefix(source, "ubi")
	if !ok {
		return ID{}, errNoVolume
	}
	if _, err := decimal(rest); err == nil {
		return u.id("ubi0_" + rest)
	}
	if _, _, ok := volumeName(source); ok {
		return u.id(source)
	}
	at := strings.IndexAny(rest, ":!")
	if at < 0 {
		return ID{}, errNoVolume
	}
	device := rest[:at]
	if device == "" {
		device = "0"
	}
	if _, err := decimal(device); err != nil {
		return ID{}, errNoVolume
	}
	return u.named(device, rest[at+1:])
}

// named returns the volume of a UBI device by the name that it was given.
func (u ubi) named(device, title string) (ID, error) {
	names, err := u.names()
	if err != nil {
		return ID{}, err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "ubi"+device+"_") {
			continue
		}
		got, err := u.attr(name, "name")
		if err != nil {
			return ID{}, err
		}
		if got == title {
			return u.id(name)
		}
	}
	return ID{}, errNoVolume
}

// below returns the volume that a block device of the kernel's shows for
// reading only, such as ubiblock0_1. For any other block device ok is false.
func (u ubi) below(sys string, dev uint64) (id ID, ok bool, err error) {
	link, err := os.Readlink(fmt.Sprintf("%s/dev/block/%d:%d", sys, unix.Major(dev), unix.Minor(dev)))
	if errors.Is(err, os.ErrNotExist) {
		return ID{}, false, nil
	}
	if err != nil {
		return ID{}, false, err
	}
	numbers, isVolume := strings.CutPrefix(filepath.Base(link), "ubiblock")
	if !isVolume {
		return ID{}, false, nil
	}
	id, err = u.id("ubi" + numbers)
	return id, true, err
}

// where returns the first place in the list of mounts where the volume is in
// use: as UBIFS, or as a block device. "" means nowhere.
func (u ubi) where(id ID, sys, list string) (string, error) {
	e, found, err := mountinfo.Find(list, func(e mountinfo.Entry) (bool, error) {
		if e.FSType == "ubifs" {
			got, err := u.mounted(e.Source, "/")
			if errors.Is(err, errNoVolume) || errors.Is(err, os.ErrNotExist) {
				return false, nil // renamed since; the kernel still knows what is in use
			}
			return got == id, err
		}
		got, ok, err := u.below(sys, e.Dev)
		return ok && got == id, err
	})
	if err != nil || !found {
		return "", err
	}
	return e.Point, nil
}

// VolumeMounted returns where a UBI volume is mounted in the mount namespace of
// this process, "" if nowhere. Writing it needs the volume for itself alone, so
// that the kernel refuses what this cannot see.
func VolumeMounted(p Partition) (where string, err error) {
	return volumes(sysfs).where(p.ID, sysfs, mountinfo.Self)
}
