package mount

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/mountinfo"
)

// IsMounted reports whether a file system on the block device with number dev
// (as in stat's st_rdev) is mounted, and where first. ok is meaningless after an error.
//
// It sees the mounts of this process's mount namespace only. And btrfs shows
// numbers that are no block device. To be sure that nobody anywhere has a device
// mounted, open it with O_EXCL as well.
func IsMounted(dev uint64) (where string, ok bool, err error) {
	return isMounted(mountinfo.Self, dev)
}

func isMounted(file string, dev uint64) (string, bool, error) {
	e, ok, err := mountinfo.Find(file, func(e mountinfo.Entry) (bool, error) { return e.Dev == dev, nil })
	return e.Point, ok, err
}

// numberString encodes a device number as "major:minor" in decimal.
func numberString(dev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}
