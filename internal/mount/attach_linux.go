package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/mountinfo"
)

// fsOptions returns the mount options of a file system type, beyond read-only.
func fsOptions(typ string) []string {
	switch typ {
	case "ext4", "ext3":
		// noload: a stick that was pulled has a dirty journal. Replaying it
		// would write to the stick, and fails on one with a write protect
		// switch. Without it files may be stale; checksums find that.
		// errors=continue: the superblock may ask for a kernel panic at the
		// first error, and the superblock is the stick's.
		// (source: ext4(5), "noload" and "errors")
		return []string{"noload", "errors=continue"}
	case "ext2":
		return []string{"errors=continue"}
	case "vfat":
		// Names in UTF-8, whatever the kernel's default character set is.
		return []string{"utf8"}
	default:
		return nil
	}
}

// how says how a file system is mounted.
type how struct {
	typ     string
	write   bool
	options []string
}

// readOnly is how a stick is mounted to be read.
func readOnly(typ string) how { return how{typ: typ, options: fsOptions(typ)} }

// attach mounts the file system on source, and returns its root directory and
// the mount itself. mnt is nil if root alone holds the mount.
func attach(source *os.File, as how, runDir string) (root *os.Root, mnt *os.File, err error) {
	root, mnt, err = attachDetached(source, as)
	if errors.Is(err, unix.ENOSYS) {
		root, err = attachPrivate(source, as, runDir, unshare)
	}
	if errors.Is(err, unix.EBUSY) {
		// One file system cannot be mounted both ways. Somebody was faster.
		other := "read-write"
		if as.write {
			other = "read-only"
		}
		return nil, nil, fmt.Errorf("%w: it is mounted %s elsewhere; turn off other automounters", err, other)
	}
	return root, mnt, err
}

// attachDetached mounts without attaching the mount to any directory tree. It
// fails with ENOSYS on kernels before 5.2.
func attachDetached(source *os.File, as how) (*os.Root, *os.File, error) {
	fsfd, err := unix.Fsopen(as.typ, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil, nil, ErrTypeUnsupported
	}
	if err != nil {
		return nil, nil, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fsfd)
	if err := configure(fsfd, source, as); err != nil {
		return nil, nil, err
	}
	attrs := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if !as.write {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attrs|unix.MOUNT_ATTR_NOSYMFOLLOW)
	if errors.Is(err, unix.EINVAL) {
		// Kernels before 5.14 do not know nosymfollow. We follow no link anyway.
		fd, err = unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attrs)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("fsmount: %w", err)
	}
	mnt := os.NewFile(uintptr(fd), "stick")
	root, err := os.OpenRoot(fdPath(mnt))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open root directory: %w", cause(err)), mnt.Close())
	}
	return root, mnt, nil
}

// configure gives the file system context its source and options, and has the
// kernel read the superblock.
func configure(fsfd int, source *os.File, as how) error {
	if !as.write {
		if err := unix.FsconfigSetFlag(fsfd, "ro"); err != nil {
			return fmt.Errorf("set ro: %w", err)
		}
	}
	if err := unix.FsconfigSetString(fsfd, "source", fdPath(source)); err != nil {
		return fmt.Errorf("set source: %w", err)
	}
	for _, option := range as.options {
		var err error
		if key, value, ok := strings.Cut(option, "="); ok {
			err = unix.FsconfigSetString(fsfd, key, value)
		} else {
			err = unix.FsconfigSetFlag(fsfd, key)
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", option, err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return fmt.Errorf("read file system: %w", err)
	}
	return nil
}

// mountPoint is the empty directory, in the run directory, that old kernels mount
// on. The run directory itself holds locks, which others must find meanwhile.
const mountPoint = "stick"

// attachPrivate mounts on a directory below runDir, in a mount namespace that no
// other thread has, and detaches the mount before it returns. There is nothing
// to clean up after a kill at any instant.
//
// A sandbox may forbid new namespaces. Then the one that it has made for the
// process must do: the mount is seen there, by the process and its children,
// until it is detached a moment later.
func attachPrivate(source *os.File, as how, runDir string, unshare func() error) (root *os.Root, err error) {
	point, err := makeMountPoint(runDir)
	if err != nil {
		return nil, err
	}
	err = onThread(func() error {
		if err := ownNamespace(unshare, point); err != nil {
			return err
		}
		// Kernels before 5.10 ignore the unknown nosymfollow.
		flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSYMFOLLOW)
		if !as.write {
			flags |= unix.MS_RDONLY
		}
		err := unix.Mount(fdPath(source), point, as.typ, flags, strings.Join(as.options, ","))
		if errors.Is(err, unix.ENODEV) {
			return ErrTypeUnsupported
		}
		if err != nil {
			return err
		}
		var openErr error
		if root, openErr = os.OpenRoot(point); openErr != nil {
			openErr = fmt.Errorf("open root directory: %w", cause(openErr))
		}
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			return errors.Join(openErr, fmt.Errorf("detach: %w", err))
		}
		return openErr
	})
	if err != nil && root != nil {
		err = errors.Join(err, root.Close())
		root = nil
	}
	return root, err
}

// makeMountPoint makes the directory to mount on, and those above it.
func makeMountPoint(runDir string) (string, error) {
	point := filepath.Join(runDir, mountPoint)
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return "", err
	}
	if err := os.Mkdir(point, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(point)
	if err == nil && !info.IsDir() {
		err = &os.PathError{Op: "mount on", Path: point, Err: unix.ENOTDIR}
	}
	return point, err
}

func unshare() error { return unix.Unshare(unix.CLONE_NEWNS) }

// ownNamespace sees to it that what this thread mounts on point is not passed
// on to where it came from.
func ownNamespace(unshare func() error, point string) error {
	err := unshare()
	if errors.Is(err, unix.EPERM) { // a sandbox; does it have a namespace of its own?
		real, realErr := filepath.EvalSymlinks(point)
		at, atErr := mountinfo.At(mountinfo.Self, real)
		if realErr == nil && atErr == nil && (!at.Shared || at.Slave) {
			return nil
		}
		return errors.Join(fmt.Errorf("unshare: %w", err), realErr, atErr)
	}
	if err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// onThread runs f on a thread that ends with it, so that what f does to the
// thread (its namespaces) is seen by nobody else.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread never ends, and /proc/self shows its mounts.
			// While it is held here, the next try gets another thread.
			err := onThread(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f() // still locked: the runtime ends the thread
	}()
	return <-done
}

// fdPath names the open file f for system calls that want a path. It cannot
// be swapped for another file meanwhile.
func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
