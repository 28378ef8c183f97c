package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxDevices bounds how many block devices are looked at.
const maxDevices = 1024

// Scan returns the block devices on USB that are there already, by name: the
// partitions, and the disks that have none. sysfs is usually "/sys".
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
	slices.Sort(names)
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
	if errors.Is(err, fs.ErrNotExist) {
		return Device{}, false, nil
	}
	if err != nil {
		return Device{}, false, err
	}
	d := Device{Name: name, Action: Add}
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
	d.Partition = err == nil
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
