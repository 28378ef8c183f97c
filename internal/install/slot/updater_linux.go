package slot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

var (
	// ErrIncomplete means that a UBI volume got fewer bytes than were promised.
	// The kernel refuses to read it, and so does a boot loader, until an update
	// of it is complete.
	ErrIncomplete = errors.New("the update of the volume is not complete")
	// ErrCorrupted means that the kernel's checksum of a static volume is wrong
	// although everything was written.
	ErrCorrupted = errors.New("the volume is corrupted")
)

// volume is the medium of a UBI volume. The kernel takes a volume update only
// as a whole, from the beginning on, and its length first:
//
//  1. UBI_IOCVOLUP sets the update marker of the volume, on the flash, and
//     erases the volume. Cut here, or anywhere until 3, the volume cannot be
//     read, mounted or booted. Nothing boots it: the boot loader was told to
//     stay with the other slot before. The next update begins anew.
//  2. Each eraseblock is written when its bytes are complete.
//  3. After the last byte the kernel takes the marker away.
//
// (source: Linux, drivers/mtd/ubi/upd.c)
//
// So there is nothing to compare with, and nothing of an interrupted update is
// kept.
type volume struct {
	dev     updater
	size    int64 // of the image
	started bool
	sent    int64
}

// updater is an open UBI volume.
type updater interface {
	io.ReaderAt // of the flash: there is no cache
	io.Writer   // the next bytes of an update
	// Start begins an update of size bytes. The kernel refuses it (EBUSY)
	// while anybody else has the volume open or mounted.
	Start(size int64) error
	Sync() error
	// Unfinished and Corrupted tell what the kernel thinks of the volume.
	Unfinished() (bool, error)
	Corrupted() (bool, error)
	Close() error
}

// ReadAt is for reading back. The kernel refuses it while an update goes on.
func (v *volume) ReadAt(p []byte, off int64) (int, error) { return v.dev.ReadAt(p, off) }

// Uncached is true: UBI has no cache.
func (v *volume) Uncached() bool { return true }

// WriteAt sends the next bytes: off is where the last call ended. The first
// call starts the update, which takes as long as erasing the volume does.
func (v *volume) WriteAt(p []byte, off int64) (int, error) {
	switch {
	case off != v.sent:
		return 0, fmt.Errorf("internal error: byte %d of the update is to come next", v.sent)
	case int64(len(p)) > v.size-v.sent:
		return 0, fmt.Errorf("the image is longer than the %d bytes that were announced: %w", v.size, unix.ENOSPC)
	}
	if !v.started {
		if err := v.dev.Start(v.size); err != nil {
			return 0, fmt.Errorf("start the update of the volume: %w", err)
		}
		v.started = true
	}
	n, err := v.dev.Write(p)
	v.sent += int64(n)
	return n, err
}

// Zero sends nothing less than the zeros: the volume is erased to ones.
func (v *volume) Zero(int64, int64) error { return errors.ErrUnsupported }

// Flush asks the kernel whether it takes the update for complete.
func (v *volume) Flush() error {
	if v.sent != v.size {
		return fmt.Errorf("%w: %d of %d bytes", ErrIncomplete, v.sent, v.size)
	}
	if err := v.dev.Sync(); err != nil {
		return err
	}
	if unfinished, err := v.dev.Unfinished(); err != nil || unfinished {
		return errors.Join(err, ErrIncomplete)
	}
	if corrupted, err := v.dev.Corrupted(); err != nil || corrupted {
		return errors.Join(err, ErrCorrupted)
	}
	return nil
}

func (v *volume) Close() error { return v.dev.Close() }

// openVolume opens a UBI volume. Nothing is written until the first WriteAt.
func openVolume(p Partition, size int64) (*volume, error) {
	u := volumes(sysfs)
	name, err := u.name(p.ID.Dev)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p.Path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := checkID(f, p.ID); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &volume{dev: &volumeFile{File: f, ubi: u, name: name}, size: size}, nil
}

// volumeFile is the character device of a volume.
type volumeFile struct {
	*os.File
	ubi  ubi
	name string // such as "ubi0_1"
}

// Start implements updater (source: Linux, include/uapi/mtd/ubi-user.h,
// UBI_IOCVOLUP: a pointer to a 64-bit number).
func (f *volumeFile) Start(size int64) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.UBI_IOCVOLUP, uintptr(unsafe.Pointer(&size)))
		runtime.KeepAlive(&size)
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

func (f *volumeFile) Unfinished() (bool, error) { return f.flag("upd_marker") }
func (f *volumeFile) Corrupted() (bool, error)  { return f.flag("corrupted") }

func (f *volumeFile) flag(attr string) (bool, error) {
	n, err := f.ubi.number(f.name, attr)
	return n != 0, err
}
