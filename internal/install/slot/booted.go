package slot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotASlot means that the running root file system is on neither slot.
var ErrNotASlot = errors.New("the running root file system is on neither RootfsPartA nor RootfsPartB")

// maxCmdline bounds what is read of the kernel command line, in bytes
// (source: the largest COMMAND_LINE_SIZE of Linux is 8192).
const maxCmdline = 16 << 10

// Root says where to look for the running root file system.
type Root struct {
	// Dir is the root directory of the device: "/", or the directory of a
	// simulated device.
	Dir string
	// Simulated means that Dir is no mounted slot, so that only the kernel
	// command line in it can tell.
	Simulated bool
}

// Booted returns the index of the partition, of the two given, that holds the
// running root file system.
//
// The device number of the mounted root decides. Only where that number cannot
// name a partition, because the root is an overlay or lives in memory, does
// root= of the kernel command line count. A root on a third partition is
// [ErrNotASlot], whatever the command line says.
func Booted(parts [2]Partition, root Root) (int, error) {
	if parts[0].ID == parts[1].ID {
		return 0, fmt.Errorf("RootfsPartA %s and RootfsPartB %s are the same partition", parts[0].Path, parts[1].Path)
	}
	dev, ok, err := root.device()
	if err != nil {
		return 0, err
	}
	if ok {
		return index(parts, ID{Block: true, Dev: dev})
	}
	spec, err := rootParameter(filepath.Join(root.Dir, "proc/cmdline"))
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(spec, "UUID=") || strings.HasPrefix(spec, "LABEL=") {
		// Both slots can hold the same image, and so the same file system.
		return 0, fmt.Errorf("kernel command line root=%s: a file system's name does not tell the slots apart: use PARTUUID=", spec)
	}
	id, err := Identify(filepath.Join(root.Dir, devicePath(spec)))
	if err != nil {
		return 0, fmt.Errorf("kernel command line root=%s: %w", spec, cause(err))
	}
	return index(parts, id)
}

// device returns the device number of the mounted root, if that names a
// partition.
func (r Root) device() (dev uint64, ok bool, err error) {
	if r.Simulated {
		return 0, false, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(r.Dir, &st); err != nil {
		return 0, false, fmt.Errorf("stat %s: %w", r.Dir, err)
	}
	return st.Dev, unix.Major(st.Dev) != 0, nil // 0: overlay, tmpfs, btrfs and other anonymous devices
}

// Evidence says in words what tells [Booted] which slot runs.
func (r Root) Evidence() (string, error) {
	dev, ok, err := r.device()
	switch {
	case err != nil:
		return "", err
	case ok:
		return fmt.Sprintf("the device number %d:%d of /", unix.Major(dev), unix.Minor(dev)), nil
	}
	spec, err := rootParameter(filepath.Join(r.Dir, "proc/cmdline"))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("root=%.64s on the kernel command line", spec), nil
}

func index(parts [2]Partition, id ID) (int, error) {
	for i, p := range parts {
		if p.ID == id {
			return i, nil
		}
	}
	return 0, ErrNotASlot
}

func rootParameter(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("kernel command line: %w", err)
	}
	defer f.Close() // read only
	line, err := io.ReadAll(io.LimitReader(f, maxCmdline))
	if err != nil {
		return "", fmt.Errorf("kernel command line: %w", err)
	}
	spec := ""
	for word := range bytes.FieldsSeq(line) {
		if v, ok := strings.CutPrefix(string(word), "root="); ok {
			spec = v // the last one wins, as in the kernel
		}
	}
	if spec == "" {
		return "", errors.New("kernel command line: no root= in it")
	}
	return strings.Trim(spec, `"`), nil
}

// devicePath turns a root= value into a path below /dev
// (source: Linux, early-lookup.c; udev's /dev/disk links).
func devicePath(spec string) string {
	for prefix, dir := range map[string]string{"PARTUUID=": "by-partuuid", "PARTLABEL=": "by-partlabel"} {
		if v, ok := strings.CutPrefix(spec, prefix); ok {
			return filepath.Join("/dev/disk", dir, filepath.Base(v))
		}
	}
	return filepath.Join("/", spec)
}
