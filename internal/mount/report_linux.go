package mount

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

// WriteReport leaves a new file with text on the stick, and returns its path
// below the stick's root: usb-updater/<name>-<n>.txt, with the first free number.
// No file that is there is changed, and no link is followed. name is cut, and
// what FAT could not hold is replaced. text is at most [MaxReport] bytes.
//
// The stick must be closed. It is mounted once more, for this alone and for
// nobody else to see. It must be the one that was opened, and is refused for all
// that [Open] refuses; [ErrGone] says that it is another one.
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
func (s *Stick) WriteReport(ctx context.Context, name, text string) (string, error) {
	type result struct {
		path string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		path, err := s.writeReport(name, text)
		done <- result{path, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return "", fmt.Errorf("write report to stick %.64q: %w", s.Name, r.err)
		}
		return r.path, nil
	case <-ctx.Done():
		return "", fmt.Errorf("write report to stick %.64q: %w", s.Name, context.Cause(ctx))
	}
}

func (s *Stick) writeReport(name, text string) (path string, err error) {
	if len(text) > MaxReport {
		return "", fmt.Errorf("%d bytes, more than %d", len(text), MaxReport)
	}
	root, mnt, err := s.openForReport()
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
func (s *Stick) openForReport() (*os.Root, *os.File, error) {
	if s.Dev == 0 {
		root, err := os.OpenRoot(s.Name)
		return root, nil, err
	}
	blk, err := s.sys.openDevice(s.dev)
	if err != nil {
		return nil, nil, err
	}
	defer blk.file.Close() // the mount has its own hold on the device
	id, err := s.sys.admit(blk, s.opts)
	if err == nil && id != s.id {
		err = ErrGone
	}
	if err != nil {
		return nil, nil, err
	}
	typ, err := allowedType(blk, s.opts.Types)
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
	root, mnt, err := attach(blk.file, as, s.opts.runDir())
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
	made := unix.Mkdirat(int(top.Fd()), reportDir, reportDirMode)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return "", fmt.Errorf("make directory %s: %w", reportDir, made)
	}
	step("directory")
	dir, err := openAt(top, reportDir, unix.O_DIRECTORY) // no link
	if err != nil {
		return "", fmt.Errorf("open directory %s: %w", reportDir, err)
	}
	defer dir.Close()
	if made == nil { // not one of theirs
		publish(dir, reportDirMode)
	}
	f, file, err := create(dir, name)
	if err != nil {
		return "", fmt.Errorf("make report: %w", err)
	}
	publish(f, reportFileMode)
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

// publish gives what was made here its mode, whatever the process's mask has
// taken from it: who reads a report is seldom root. FAT keeps no modes and may
// refuse; the report counts for more.
func publish(f *os.File, mode uint32) { _ = unix.Fchmod(int(f.Fd()), mode) }

// LastReport returns the text of the report that WriteReport left last under
// that name, "" if there is none that can be read. It is what the stick says: at
// most [MaxReport] bytes of anything.
func (s *Stick) LastReport(name string) string {
	top, err := s.root.Open(".")
	if err != nil {
		return ""
	}
	defer top.Close()
	dir, err := openAt(top, reportDir, unix.O_DIRECTORY) // no link
	if err != nil {
		return ""
	}
	defer dir.Close()
	name = reportName(name)
	last := 0
	for ; last < maxReports; last++ {
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), reportFile(name, last+1), &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			break
		}
	}
	if last == 0 {
		return ""
	}
	f, err := openAt(dir, reportFile(name, last), 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	text, _ := io.ReadAll(io.LimitReader(f, MaxReport)) // half a report is none that says the same
	return string(text)
}

func reportFile(name string, n int) string { return fmt.Sprintf("%s-%d.txt", name, n) }

// create makes the file with the first free number.
func create(dir *os.File, name string) (*os.File, string, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	for n := 1; n <= maxReports; {
		file := reportFile(name, n)
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
