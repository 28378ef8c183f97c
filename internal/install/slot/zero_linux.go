package slot

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blkZeroOut zeroes a range of a block device (source: Linux, block/ioctl.c,
// BLKZEROOUT: an array of two 64-bit numbers, start and length in bytes).
func blkZeroOut(fd int, off, n int64) error {
	arg := [2]uint64{uint64(off), uint64(n)}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&arg[0])))
		runtime.KeepAlive(&arg)
		switch {
		case errno == 0:
			return nil
		case errors.Is(errno, unix.EINTR):
			continue
		case errors.Is(errno, unix.EOPNOTSUPP), errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.ENOTTY):
			return errors.ErrUnsupported
		default:
			return errno
		}
	}
}
