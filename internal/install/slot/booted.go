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

	"github.com/usb-updater/usb-updater/internal/mountinfo"
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
	// Sysfs is where sysfs is mounted; "" means /sys.
	Sysfs string
}

// Booted returns the index of the partition, of the two given, that holds the
// running root file system.
//
// The device number of the mounted root decides; of UBIFS, which has none, the
// volume in the list of mounts. Only where the root is on no partition and no
// volume, because it is an overlay or lives in memory, does root= of the kernel
// command line count. A root on a third partition is [ErrNotASlot], whatever
// the command line says.
func Booted(parts [2]Partition, root Root) (int, error) {
	if parts[0].ID == parts[1].ID {
		return 0, fmt.Errorf("RootfsPartA %s and RootfsPartB %s are the same partition", parts[0].Path, parts[1].Path)
	}
	on, err := root.on()
	if err != nil {
		return 0, err
	}
	if on.ok {
		return index(parts, on.id)
	}
	spec, err := rootParameter(filepath.Join(root.Dir, "proc/cmdline"))
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(spec, "UUID=") || strings.HasPrefix(spec, "LABEL=") {
		// Both slots can hold the same image, and so the same file system.
		return 0, fmt.Errorf("kernel command line root=%s: a file system's name does not tell the slots apart: use PARTUUID=", spec)
	}
	id, err := root.identify(spec)
	if err != nil {
		return 0, fmt.Errorf("kernel command line root=%s: %w", spec, cause(err))
	}
	return index(parts, id)
}

// rooted is what the mounted root is on. ok is false if that is neither a
// partition nor a volume.
type rooted struct {
	id     ID
	source string // of UBIFS
	ok     bool
}

func (r Root) on() (rooted, error) {
	if r.Simulated {
		return rooted{}, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(r.Dir, &st); err != nil {
		return rooted{}, fmt.Errorf("stat %s: %w", r.Dir, err)
	}
	return r.at(st.Dev)
}

// at is what a root with that device number is on.
func (r Root) at(dev uint64) (rooted, error) {
	if unix.Major(dev) != 0 {
		id, err := r.volume(ID{Block: true, Dev: dev})
		return rooted{id: id, ok: true}, err
	}
	// UBIFS, overlay, tmpfs, btrfs and others have a number of no device.
	e, found, err := mountinfo.Find(filepath.Join(r.Dir, mountinfo.Self), func(e mountinfo.Entry) (bool, error) {
		return e.Dev == dev && e.FSType == "ubifs", nil
	})
	if err != nil || !found {
		return rooted{}, err
	}
	id, err := volumes(r.sysfs()).mounted(e.Source, r.Dir)
	if err != nil {
		return rooted{}, fmt.Errorf("root file system %.64q: %w", e.Source, cause(err))
	}
	return rooted{id, e.Source, true}, nil
}

func (r Root) sysfs() string {
	if r.Sysfs == "" {
		return sysfs
	}
	return r.Sysfs
}

// identify returns what root= names.
func (r Root) identify(spec string) (ID, error) {
	u := volumes(r.sysfs())
	if strings.HasPrefix(spec, "ubi") && !r.Simulated {
		return u.mounted(spec, r.Dir)
	}
	id, err := u.identify(filepath.Join(r.Dir, devicePath(spec)))
	if err != nil {
		return ID{}, err
	}
	return r.volume(id)
}

// volume returns the UBI volume that a block device shows, for others the
// device itself.
func (r Root) volume(id ID) (ID, error) {
	if !id.Block {
		return id, nil
	}
	volume, ok, err := volumes(r.sysfs()).below(r.sysfs(), id.Dev)
	if err != nil || !ok {
		return id, err
	}
	return volume, nil
}

// Evidence says in words what tells [Booted] which slot runs.
func (r Root) Evidence() (string, error) {
	on, err := r.on()
	switch {
	case err != nil:
		return "", err
	case on.source != "":
		return fmt.Sprintf("the UBI volume %.64q that is mounted as /", on.source), nil
	case on.id.UBI:
		return "the UBI volume whose block device is mounted as /", nil
	case on.ok:
		return fmt.Sprintf("the device number %d:%d of /", unix.Major(on.id.Dev), unix.Minor(on.id.Dev)), nil
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
	if _, _, ok := volumeName(spec); ok {
		return filepath.Join("/dev", spec)
	}
	return filepath.Join("/", spec)
}
