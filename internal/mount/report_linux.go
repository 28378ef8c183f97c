package mount

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// MaxReport bounds a report, in bytes.
	MaxReport = 16 << 10

	reportDir      = "usb-updater"
	maxReports     = 1000 // numbers that are tried
	maxReportName  = 48   // bytes of the name before the number
	reportDirMode  = 0o755
	reportFileMode = 0o644
)

var (
	// ErrReadOnly reports a stick that cannot be written: its file system is of
	// a kind that is never written, or its switch says so.
	ErrReadOnly = errors.New("the stick is read-only")
	// ErrUnclean reports a stick whose journal would have to be replayed. That
	// would write what somebody else began.
	ErrUnclean = errors.New("the stick was not removed cleanly from another machine")
	// ErrReportsFull reports a stick that has a file for each number.
	ErrReportsFull = errors.New("the stick holds too many reports")
)

// writeOptions returns how a file system is mounted for a report, and false for
// types that are never written.
func writeOptions(typ string) (how, bool) {
	as := how{typ: typ, write: true}
	switch typ {
	case "ext4", "ext3", "ext2":
		// The superblock may ask for a kernel panic at the first error, and the
		// superblock is the stick's (source: ext4(5), "errors").
		as.options = []string{"errors=remount-ro"}
	case "vfat":
		// flush: what was written goes to the stick at once, for somebody is
		// about to pull it (source: Linux, Documentation/filesystems/vfat.rst).
		as.options = []string{"utf8", "flush"}
	case "exfat":
	default:
		return how{}, false
	}
	return as, true
}

// WriteReport leaves a new file with text on a stick, and returns its path below
// the stick's root: usb-updater/<name>-<n>.txt, with the first free number. No
// file that is there is changed, and no link is followed. name is cut, and what
// FAT could not hold is replaced. text is at most [MaxReport] bytes.
//
// dev and opts are as for [Open], and the same sticks are refused. number, if it
// is not 0, is the device that dev must be: the one that was read. The stick
// must not be open. It is mounted for this alone, for nobody else to see.
//
// On the stick, if it is pulled or the power fails, in this order:
//
//  1. Before the directory is made: as it was.
//  2. Before the file is made: an empty directory usb-updater more.
//  3. Before the file is flushed: an empty or shortened file more, or none.
//  4. After that, before the unmount: the whole file; FAT may be marked as not
//     removed cleanly.
//
// Files that were there are whole in each of them, as far as the file system
// keeps its own promises. If ctx ends first, WriteReport returns at once; what
// hangs in the kernel is finished and unmounted when it comes back.
func WriteReport(ctx context.Context, dev string, number uint64, name, text string, opts Options) (string, error) {
	type result struct {
		path string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		path, err := writeReport(opts.sysfs(), dev, number, name, text, opts)
		done <- result{path, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return "", fmt.Errorf("write report to stick %.64q: %w", dev, r.err)
		}
		return r.path, nil
	case <-ctx.Done():
		return "", fmt.Errorf("write report to stick %.64q: %w", dev, context.Cause(ctx))
	}
}

func writeReport(sys sysfs, dev string, number uint64, name, text string, opts Options) (path string, err error) {
	if len(text) > MaxReport {
		return "", fmt.Errorf("%d bytes, more than %d", len(text), MaxReport)
	}
	root, mnt, err := openForReport(sys, dev, number, opts)
	if err != nil {
		return "", err
	}
	defer func() { // unmounts
		err = errors.Join(err, root.Close())
		if mnt != nil {
			err = errors.Join(err, mnt.Close())
		}
	}()
	top, err := root.Open(".")
	if err != nil {
		return "", cause(err)
	}
	defer top.Close()
	return leave(top, reportName(name), text, func(string) {})
}

// openForReport mounts the stick for writing, or opens the directory that
// stands in for it.
func openForReport(sys sysfs, dev string, number uint64, opts Options) (*os.Root, *os.File, error) {
	if opts.AllowDirectory && strings.Contains(dev, "/") {
		if info, err := os.Stat(dev); err == nil && info.IsDir() {
			root, err := os.OpenRoot(dev)
			return root, nil, err
		}
	}
	blk, err := sys.openDevice(dev)
	if err != nil {
		return nil, nil, err
	}
	defer blk.file.Close() // the mount has its own hold on the device
	if number != 0 && blk.number != number {
		return nil, nil, fmt.Errorf("it is device %s now, and was %s", numberString(blk.number), numberString(number))
	}
	if err := sys.checkProtected(blk.number, opts.Protected); err != nil {
		return nil, nil, err
	}
	typ, err := allowedType(blk, opts.Types)
	if err != nil {
		return nil, nil, err
	}
	as, ok := writeOptions(typ)
	if !ok {
		return nil, nil, fmt.Errorf("%w: %s", ErrReadOnly, typ)
	}
	// The kernel would mount it read-only without a word.
	if ro, err := unix.IoctlGetInt(int(blk.file.Fd()), unix.BLKROGET); err != nil || ro != 0 {
		return nil, nil, errors.Join(ErrReadOnly, err)
	}
	if err := checkJournal(blk.file, typ); err != nil {
		return nil, nil, err
	}
	runDir := opts.RunDir
	if runDir == "" {
		runDir = DefaultRunDir
	}
	root, mnt, err := attach(blk.file, as, runDir)
	if err != nil {
		return nil, nil, fmt.Errorf("mount %s as %s: %w", blk.name, typ, err)
	}
	return root, mnt, nil
}

// checkJournal refuses an ext file system whose journal is not empty (source:
// Linux, Documentation/filesystems/ext4/super.rst, s_feature_incompat,
// INCOMPAT_RECOVER).
func checkJournal(f *os.File, typ string) error {
	const superblock, incompat, recover = 1024, 0x60, 0x4
	if !slices.Contains([]string{"ext4", "ext3"}, typ) {
		return nil
	}
	var b [4]byte
	if _, err := f.ReadAt(b[:], superblock+incompat); err != nil {
		return fmt.Errorf("read superblock: %w", cause(err))
	}
	if binary.LittleEndian.Uint32(b[:])&recover != 0 {
		return ErrUnclean
	}
	return nil
}

// reportName makes a name that every file system can hold.
func reportName(name string) string {
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", r) {
			return r
		}
		return '_'
	}, name)
	if name = name[:min(len(name), maxReportName)]; name == "" {
		return "device"
	}
	return name
}

// leave makes the file in the directory below top. step hears of what was done,
// for tests that cut there.
func leave(top *os.File, name, text string, step func(string)) (path string, err error) {
	if err := unix.Mkdirat(int(top.Fd()), reportDir, reportDirMode); err != nil && !errors.Is(err, unix.EEXIST) {
		return "", fmt.Errorf("make directory %s: %w", reportDir, err)
	}
	step("directory")
	dir, err := openAt(top, reportDir, unix.O_DIRECTORY) // no link
	if err != nil {
		return "", fmt.Errorf("open directory %s: %w", reportDir, err)
	}
	defer dir.Close()
	f, file, err := create(dir, name)
	if err != nil {
		return "", fmt.Errorf("make report: %w", err)
	}
	step("file")
	_, err = f.WriteString(text)
	if err == nil {
		step("text")
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		// Half a report would be worse than none. Only what was made here goes.
		return "", errors.Join(fmt.Errorf("write %s: %w", file, cause(err)), unix.Unlinkat(int(dir.Fd()), file, 0))
	}
	step("flushed")
	// The names, then all that the file system has left.
	if err := errors.Join(dir.Sync(), top.Sync(), unix.Syncfs(int(top.Fd()))); err != nil {
		return "", fmt.Errorf("flush: %w", err)
	}
	step("synced")
	return reportDir + "/" + file, nil
}

// create makes the file with the first free number.
func create(dir *os.File, name string) (*os.File, string, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	for n := 1; n <= maxReports; {
		file := fmt.Sprintf("%s-%d.txt", name, n)
		fd, err := unix.Openat(int(dir.Fd()), file, flags, reportFileMode)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), file), file, nil
		case errors.Is(err, unix.EEXIST):
			n++
		case !errors.Is(err, unix.EINTR):
			return nil, "", fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil, "", ErrReportsFull
}
