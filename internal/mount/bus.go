package mount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

var (
	// ErrBus reports a block device on a bus that [Options] do not list.
	ErrBus = errors.New("device is on a bus that is not allowed")
	// ErrComposite reports a USB device that offers more than storage. The
	// rest of it may be a keyboard that types, or a network card.
	ErrComposite = errors.New("USB device is more than storage")
)

const (
	// massStorage is the interface class of sticks, in sysfs
	// (source: USB-IF, Defined Class Codes).
	massStorage = "08"
	// maxInterfaces is how many interfaces a USB device can have
	// (source: Linux, USB_MAXINTERFACES).
	maxInterfaces = 32
	// maxDepth bounds how many devices are above a block device: five hubs in
	// a row, the host controller and the bridges to it.
	maxDepth = 64
	// maxUSBEntries bounds the directory of a USB device in sysfs.
	maxUSBEntries = 1024
)

// checkSource returns [ErrBus] if dev is on none of the buses, and
// [ErrComposite] if it hangs on a USB device with other interfaces than mass
// storage, unless composite allows that. No buses means any.
func (s sysfs) checkSource(dev uint64, buses []string, composite bool) error {
	if len(buses) == 0 && composite {
		return nil
	}
	dir, err := s.directory(dev)
	if err != nil {
		return err
	}
	above, err := s.ancestors(dir)
	if err != nil {
		return err
	}
	if len(buses) > 0 && !slices.ContainsFunc(above, func(a ancestor) bool { return slices.Contains(buses, a.subsystem) }) {
		return fmt.Errorf("%w: want %s", ErrBus, strings.Join(buses, ", "))
	}
	if composite {
		return nil
	}
	for _, a := range above {
		if a.subsystem != "usb" {
			continue
		}
		// Nearest first: the interface, then the device. What is above that
		// are hubs, which are devices of their own.
		switch _, err := os.Stat(filepath.Join(a.dir, "bDeviceClass")); {
		case err == nil:
			return onlyStorage(a.dir)
		case !errors.Is(err, os.ErrNotExist):
			return err
		}
	}
	return nil // not on USB
}

// ancestor is a device above another one.
type ancestor struct {
	dir       string
	subsystem string // "usb", "scsi", "mmc", …; "" if the kernel gives none
}

// ancestors returns the devices above dir, which is a directory in sysfs
// without symbolic links. The nearest one comes first.
func (s sysfs) ancestors(dir string) ([]ancestor, error) {
	top, err := filepath.EvalSymlinks(string(s))
	if err != nil {
		return nil, err
	}
	var above []ancestor
	for dir = filepath.Dir(dir); dir != top && dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if len(above) == maxDepth {
			return nil, errors.New("too many devices above it")
		}
		link, err := os.Readlink(filepath.Join(dir, "subsystem"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		a := ancestor{dir: dir}
		if err == nil {
			a.subsystem = filepath.Base(link)
		}
		above = append(above, a)
	}
	return above, nil
}

// onlyStorage checks the interfaces of the USB device in dir: all of them must
// be mass storage. One that the device does not describe (class ff) is not.
func onlyStorage(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	names, err := f.Readdirnames(maxUSBEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	// The interface is <device>:<configuration>.<number>; a hub's ports lead
	// to devices of their own, without a colon
	// (source: Linux, drivers/usb/core/message.c).
	prefix, found := filepath.Base(dir)+":", 0
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		class, err := readAttr(filepath.Join(dir, name, "bInterfaceClass"))
		if err != nil {
			return fmt.Errorf("USB interface %.64q: %w", name, err)
		}
		if class != massStorage {
			return fmt.Errorf("%w: interface %.64q has class %.8q", ErrComposite, name, class)
		}
		found++
	}
	if found == 0 || found > maxInterfaces || len(names) == maxUSBEntries {
		return fmt.Errorf("%w: it shows %d interfaces", ErrComposite, found)
	}
	return nil
}
