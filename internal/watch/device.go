package watch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Action is what happened to a device.
type Action string

// The actions that matter; the kernel has others.
const (
	Add    Action = "add"
	Change Action = "change"
	Remove Action = "remove"
)

// Device is a block device.
type Device struct {
	Name         string // kernel name, "sda1"
	Major, Minor uint32
	Action       Action
	Partition    bool
	// Disk is the kernel name of the whole disk. It is not known of one that is gone.
	Disk string
}

var errNotADevice = errors.New("uevent: not about a block device")

// maxName bounds a kernel name, in bytes (source: Linux, DISK_NAME_LEN is 32).
const maxName = 32

// deviceOf turns the properties of an event into a device.
func deviceOf(props map[string]string) (Device, error) {
	if props["SUBSYSTEM"] != "block" {
		return Device{}, errNotADevice
	}
	d := Device{Name: props["DEVNAME"], Action: Action(props["ACTION"]), Partition: props["DEVTYPE"] == "partition"}
	if d.Action != Add && d.Action != Change && d.Action != Remove {
		return Device{}, fmt.Errorf("uevent: action %.64q", d.Action)
	}
	if !validName(d.Name) {
		return Device{}, fmt.Errorf("uevent: device name %.64q", d.Name)
	}
	for key, into := range map[string]*uint32{"MAJOR": &d.Major, "MINOR": &d.Minor} {
		n, err := strconv.ParseUint(props[key], 10, 32)
		if err != nil {
			return Device{}, fmt.Errorf("uevent: %s is %.64q", key, props[key])
		}
		*into = uint32(n)
	}
	return d, nil
}

// validName: what becomes a path or an argument is lower-case letters, digits
// and the kernel's stand-in for a slash.
func validName(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789!") == ""
}
