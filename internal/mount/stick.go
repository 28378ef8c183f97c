package mount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// DefaultRunDir is where the mount point of old kernels is, if [Options] name
// no other directory.
const DefaultRunDir = "/run/usb-updater"

var (
	// ErrTypeNotAllowed reports a file system that [Options] do not list.
	ErrTypeNotAllowed = errors.New("file system type is not allowed")
	// ErrTypeUnsupported reports an allowed file system that this kernel lacks.
	ErrTypeUnsupported = errors.New("file system type is not supported by this kernel")
	// ErrPartitioned reports a disk that holds partitions and no file system of
	// its own. The partitions arrive as devices themselves.
	ErrPartitioned = errors.New("disk has a partition table")
	// ErrProtected reports a device on a disk that must never be the stick.
	ErrProtected = errors.New("device is on a protected disk")
)

// DefaultTypes returns the file system types that sticks have in the field.
// FAT12, FAT16 and FAT32 are all "vfat".
func DefaultTypes() []string { return []string{"vfat", "exfat", "ext4", "iso9660"} }

// FileSystems returns the types that may be allowed: those that [ProbeType] tells
// and that hold files.
func FileSystems() []string {
	return []string{
		"vfat", "exfat", "ext2", "ext3", "ext4", "iso9660", "udf",
		"ntfs", "xfs", "squashfs", "apfs", "f2fs", "erofs", "hfsplus", "btrfs",
	}
}

// Options say what may be opened. The zero value is safe.
type Options struct {
	// Types are the names of the file systems that may be mounted, as the
	// kernel and [ProbeType] spell them. None means [DefaultTypes]. Drivers of
	// other journaling file systems (btrfs, xfs, f2fs) may replay a journal,
	// and so write to the stick, even when they mount it read-only.
	Types []string
	// AllowDirectory lets a directory stand in for a stick, for tests and
	// demonstrations. Nothing is mounted then, and Types and Protected do not apply.
	AllowDirectory bool
	// RunDir is an absolute path, [DefaultRunDir] if empty. Only kernels
	// before 5.2 need it. It is made if it is not there.
	RunDir string
	// Sysfs is where the kernel describes devices, "/sys" if empty. A simulated
	// device has its own.
	Sysfs string
	// Protected are device numbers (as in stat's st_rdev) of what the device
	// itself lives on: root, boot, data and target. A stick on the same disk
	// as one of them, also through device mapper, is refused. A number that
	// is no block device is an error, for then the check would say nothing.
	Protected []uint64
	// Buses are the kernel's names of the buses that a stick may be on: "usb",
	// "mmc". A hard disk in a USB enclosure is on "usb" and on "scsi". None
	// means any.
	Buses []string
	// AllowComposite accepts storage that is part of a USB device with other
	// interfaces. A directory has none.
	AllowComposite bool
}

func (o Options) sysfs() sysfs { return sysfs(cmp.Or(o.Sysfs, "/sys")) }

func (o Options) runDir() string { return cmp.Or(o.RunDir, DefaultRunDir) }

// Stick is an open stick. It must be closed. It is not safe for concurrent use.
type Stick struct {
	// Name is the kernel's name of the device (sda1), or the path of a directory.
	Name string
	// Dev is the device number, 0 for a directory.
	Dev uint64
	// Type is the file system type that was mounted, "" for a directory.
	Type string

	root *os.Root
	mnt  *os.File // holds the detached mount; nil where root alone does
	sys  sysfs
	id   identity // what it was when it was opened
	dev  string   // how it was asked for
	opts Options
}

// Open opens the stick dev read-only.
//
// A dev with a slash in it is the path of a block device, or of a directory if
// opts allow one. Any other dev is a kernel name such as sda1. Both lead to a
// device number, and the rest goes by that. The whole device is opened for
// reading only; no setting of it is changed.
//
// The errors that callers decide by are the Err variables of this package and
// fs.ErrNotExist for a device that is gone. Nothing is left mounted after an error.
//
// If ctx ends first, Open returns at once. A mount that hangs in the kernel
// cannot be stopped, so it is undone when it comes back.
func Open(ctx context.Context, dev string, opts Options) (*Stick, error) {
	type result struct {
		stick *Stick
		err   error
	}
	done := make(chan result, 1)
	go func() {
		s, err := open(opts.sysfs(), dev, opts)
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("open stick %.64q: %w", dev, r.err)
		}
		return r.stick, nil
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				_ = r.stick.Close() // read-only, and nobody is left to tell
			}
		}()
		return nil, fmt.Errorf("open stick %.64q: %w", dev, context.Cause(ctx))
	}
}

func open(sys sysfs, dev string, opts Options) (*Stick, error) {
	if opts.AllowDirectory && strings.Contains(dev, "/") {
		if info, err := os.Stat(dev); err == nil && info.IsDir() {
			root, err := os.OpenRoot(dev)
			if err != nil {
				return nil, err
			}
			return &Stick{Name: dev, root: root}, nil
		}
	}
	blk, err := sys.openDevice(dev)
	if err != nil {
		return nil, err
	}
	// The mount has its own hold on the device.
	defer blk.file.Close()
	id, err := sys.admit(blk, opts)
	if err != nil {
		return nil, err
	}
	typ, err := allowedType(blk, opts.Types)
	if err != nil {
		return nil, err
	}
	root, mnt, err := attach(blk.file, readOnly(typ), opts.runDir())
	if err != nil {
		return nil, fmt.Errorf("mount %s as %s: %w", blk.name, typ, err)
	}
	return &Stick{Name: blk.name, Dev: blk.number, Type: typ, root: root, mnt: mnt, sys: sys, id: id, dev: dev, opts: opts}, nil
}

// admit tells whether a block device may be a stick, before anything of it is
// read, and which one it is.
func (s sysfs) admit(blk *blockDevice, opts Options) (identity, error) {
	if err := s.checkProtected(blk.number, opts.Protected); err != nil {
		return identity{}, err
	}
	if err := s.checkSource(blk.number, opts.Buses, opts.AllowComposite); err != nil {
		return identity{}, fmt.Errorf("%s: %w", blk.name, err)
	}
	return s.identifyOpen(blk)
}

// Adopt makes a Stick of the root directory of one that is open already, in
// this process or in the one that passed dir on. Only what lies beneath dir is
// read. dir stays the caller's. Name, Dev and Type of the Stick are not known.
func Adopt(dir *os.File) (*Stick, error) {
	root, err := os.OpenRoot(fdPath(dir))
	if err != nil {
		return nil, fmt.Errorf("adopt stick: %w", cause(err))
	}
	return &Stick{root: root}, nil
}

// allowedType returns the type of the file system on blk, if it is one of
// types, or an error that says what to do.
func allowedType(blk *blockDevice, types []string) (string, error) {
	if len(types) == 0 {
		types = DefaultTypes()
	}
	typ, err := ProbeType(blk.file)
	switch {
	case err != nil:
		return "", fmt.Errorf("probe %s: %w", blk.name, err)
	case typ == "gpt" || typ == "mbr":
		return "", fmt.Errorf("%s: %w (%s) and no file system: open one of its partitions", blk.name, ErrPartitioned, typ)
	case !slices.Contains(types, typ):
		return "", fmt.Errorf("%s: %w: %s: format the stick as one of %s", blk.name, ErrTypeNotAllowed, typ, strings.Join(types, ", "))
	}
	return typ, nil
}

// Root returns the root directory of the stick. It is valid until Close.
//
// Opening a file through it may follow a symbolic link inside the stick, wait at a
// named pipe or read something other than a file. Use Open for artifacts.
func (s *Stick) Root() *os.Root { return s.root }

// Close unmounts the stick. The kernel lets go of the device when the files
// that Open gave are closed too. A second Close does nothing.
func (s *Stick) Close() error {
	err := s.root.Close()
	if s.mnt != nil {
		err = errors.Join(err, s.mnt.Close())
		s.mnt = nil
	}
	if err != nil {
		return fmt.Errorf("close stick %.64q: %w", s.Name, err)
	}
	return nil
}
