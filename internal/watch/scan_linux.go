package watch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// MaxDisks is how many disks [Limit] lets pass.
	MaxDisks = 4
	// MaxPartitions is how many partitions of each disk [Limit] lets pass.
	MaxPartitions = 8

	maxDevices = 1024 // block devices that are looked at
)

// Scan returns the block devices on USB that are there already, by name: the
// partitions, and the disks that have none. A card reader without a card is
// left out. sysfs is usually "/sys".
func Scan(sysfs string) ([]Device, error) {
	dir, err := os.Open(filepath.Join(sysfs, "class/block"))
	if err != nil {
		return nil, fmt.Errorf("scan block devices: %w", err)
	}
	defer dir.Close() // read only
	names, err := dir.Readdirnames(maxDevices)
	if err != nil && len(names) == 0 {
		return nil, fmt.Errorf("scan block devices: %w", err)
	}
	slices.SortFunc(names, byKernel)
	var out []Device
	for _, name := range names {
		d, ok, err := lookAt(sysfs, name)
		if err != nil {
			return nil, fmt.Errorf("scan block device %.64q: %w", name, err)
		}
		if ok {
			out = append(out, d)
		}
	}
	return out, nil
}

// byKernel sorts names in the order in which the kernel gives them: sdb before
// sdaa, and sda2 before sda10.
func byKernel(a, b string) int {
	diskA, diskB := strings.TrimRight(a, "0123456789"), strings.TrimRight(b, "0123456789")
	if diskA != diskB {
		return cmp.Or(cmp.Compare(len(diskA), len(diskB)), cmp.Compare(diskA, diskB))
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// Limit keeps the first [MaxDisks] disks of what Scan found, and the first
// [MaxPartitions] partitions of each. A hub full of sticks, or a disk with
// thousands of partitions, must not keep a device busy. What is over the limit
// is left out.
func Limit(found []Device) (kept, leftOut []Device) {
	partitions := map[string]int{}
	for _, d := range found {
		n, known := partitions[d.Disk]
		if !known && len(partitions) == MaxDisks || n == MaxPartitions {
			leftOut = append(leftOut, d)
			continue
		}
		partitions[d.Disk]++
		kept = append(kept, d)
	}
	return kept, leftOut
}

// lookAt tells whether a device is a stick's. One that vanishes meanwhile is
// not.
func lookAt(sysfs, name string) (Device, bool, error) {
	path, err := filepath.EvalSymlinks(filepath.Join(sysfs, "class/block", name))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !onUSB(path) || !validName(name) {
		return Device{}, false, nil
	}
	if err != nil {
		return Device{}, false, err
	}
	if partitions, err := filepath.Glob(filepath.Join(path, "*", "partition")); err != nil || len(partitions) > 0 {
		return Device{}, false, err
	}
	number, err := os.ReadFile(filepath.Join(path, "dev"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) { // it is just being removed
		return Device{}, false, nil
	}
	if err != nil {
		return Device{}, false, err
	}
	if size, err := os.ReadFile(filepath.Join(path, "size")); err == nil && strings.TrimSpace(string(size)) == "0" {
		return Device{}, false, nil // no medium
	}
	d := Device{Name: name, Action: Add, Disk: name}
	major, minor, _ := strings.Cut(strings.TrimSpace(string(number)), ":")
	for _, x := range []struct {
		text string
		into *uint32
	}{{major, &d.Major}, {minor, &d.Minor}} {
		n, err := strconv.ParseUint(x.text, 10, 32)
		if err != nil {
			return Device{}, false, fmt.Errorf("device number %.64q", number)
		}
		*x.into = uint32(n)
	}
	_, err = os.Stat(filepath.Join(path, "partition"))
	if d.Partition = err == nil; d.Partition {
		d.Disk = filepath.Base(filepath.Dir(path))
	}
	return d, true, nil
}

// onUSB tells whether a device hangs on a USB bus (source: Linux, sysfs names
// root hubs usb1, usb2, …).
func onUSB(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if n, ok := strings.CutPrefix(part, "usb"); ok && n != "" && strings.Trim(n, "0123456789") == "" {
			return true
		}
	}
	return false
}
