package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install"
)

// roomForRecords is what the data directory should have left, in bytes: the
// store twice, as it is replaced as a whole, the history and the black box.
const roomForRecords = 1 << 20

// data looks at where the record is kept: both slots have to find it.
func (x *doctor) data(slots install.Slots) {
	const check = "data directory"
	dir := x.device.DataDir()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		x.fail(check, "Check the data partition.", fmt.Errorf("%s: %w", dir, err))
		return
	}
	for _, s := range []bootenv.Slot{slots.Booted, slots.Inactive()} {
		if p := slots.Partition(s); p.ID.Block && p.ID.Dev == st.Dev {
			x.fail(check, "Put it on a partition of its own that both slots mount.",
				fmt.Errorf("%s is on slot %s: the other slot would not find the record of an update", dir, s))
			return
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		x.fail(check, "Check the data partition.", fmt.Errorf("%s: %w", dir, err))
		return
	}
	left := fs.Bavail * uint64(fs.Bsize)
	if left < roomForRecords {
		x.warn(check, "An update of which no record can be kept is not started.", "%s has %d bytes left", dir, left)
		return
	}
	x.ok(check, "%s is on neither slot", dir)
}

// hang looks at what ends a trial that does not come as far as its boot check.
// What the kernel does not show is passed over.
func (x *doctor) hang() {
	const check = "hung trial"
	if s, ok := x.read("/proc/sys/kernel/panic"); ok {
		if s == "0" {
			x.warn(check, "Add panic=10 to the kernel's command line.", "the kernel stops at a panic, and a trial with it")
		} else {
			x.ok(check, "the kernel reboots after a panic (%s)", s)
		}
	}
	if s, ok := x.read("/sys/module/pstore/parameters/backend"); ok && (s == "" || s == "(null)") {
		x.warn(check, "docs/health.md, \"Black box\".", "no backend of pstore: a kernel that crashes cannot say why")
	}
	if !x.exists("/sys/class") {
		return
	}
	dogs, _ := filepath.Glob(x.device.Path("/sys/class/watchdog/watchdog*")) // the pattern is ours
	if len(dogs) == 0 {
		x.warn(check, "docs/health.md, \"Watchdog\".", "there is no hardware watchdog: a kernel that hangs stays on trial until somebody turns the power off")
		return
	}
	for _, dog := range dogs {
		switch s, ok := readLine(filepath.Join(dog, "state")); {
		case s == "active":
			x.ok(check, "%s runs", filepath.Base(dog))
			return
		case !ok: // a kernel without CONFIG_WATCHDOG_SYSFS
			x.ok(check, "%s is there; whether it runs is not known", filepath.Base(dog))
			return
		}
	}
	x.warn(check, "docs/health.md, \"Watchdog\".", "the hardware watchdog is not started: a kernel that hangs stays on trial")
}

// read returns a file of the device that holds one line.
func (x *doctor) read(path string) (string, bool) { return readLine(x.device.Path(path)) }

// readLine reads an attribute of the kernel.
func readLine(path string) (string, bool) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err == nil
}
