package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	checkUnits = "units"
	checkRule  = "udev"

	bootUnit     = "usb-updater-boot.service"
	giveUpUnit   = "usb-updater-boot-failed.service"
	stickUnit    = "usb-updater@.service"
	healthSocket = "usb-updater-health.socket"
	healthUnit   = "usb-updater-health@.service"
	udevRule     = "90-usb-updater.rules"
)

// maxLinks is how many links in a row are followed, as many as the kernel does.
const maxLinks = 40

// unitDirs are where systemd looks for units, in its order (source:
// systemd.unit(5), "Unit File Load Path"; /lib is of its own where it is not
// merged with /usr/lib).
func unitDirs() []string {
	return []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}

// ruleDirs are where udev looks for rules (source: udev(7), "Rules Files").
func ruleDirs() []string {
	return []string{"/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"}
}

// part is a file that systemd or udev needs.
type part struct {
	check, name string
	harm, hint  string // if it is absent or masked
	// absent and masked are how bad that is: who masks a part may mean it.
	absent, masked level
}

// units looks for what systemd starts at the boot, for a stick and for a check.
func (x *doctor) units() {
	if x.has(part{checkUnits, bootUnit, "no update would be committed", "Install it.", levelFail, levelFail}, unitDirs()) {
		if x.wanted(bootUnit, "*") {
			x.ok(checkUnits, "%s is enabled", bootUnit)
		} else {
			x.add(levelFail, checkUnits, bootUnit+" is not enabled: no update would be committed", "systemctl enable "+bootUnit)
		}
	}
	if x.has(part{checkUnits, giveUpUnit, "a trial whose boot check does not end stays", "Install it.", levelFail, levelFail}, unitDirs()) &&
		!x.wanted(giveUpUnit, "emergency.target") {
		x.warn(checkUnits, "systemctl reenable "+bootUnit, "emergency.target does not want %s: a trial that ends in the emergency shell stays there", giveUpUnit)
	}
	x.has(part{checkUnits, stickUnit, "a stick starts nothing", "Install it. If it is masked to keep sticks away, all is well.", levelFail, levelWarn}, unitDirs())
	// Without the socket the checks run in a sandbox that has no network; with
	// it, they run in this unit and nowhere else.
	if x.has(part{checkUnits, healthSocket, "health checks cannot connect to services", "Install it, with " + healthUnit + ".", levelWarn, levelWarn}, unitDirs()) {
		x.has(part{checkUnits, healthUnit, "every health check would fail", "Install it.", levelFail, levelFail}, unitDirs())
	}
}

// rule looks for what tells systemd of a stick. A service of the owner's that
// runs usb-updater watch needs none, and cannot be told from others.
func (x *doctor) rule() {
	p := part{checkRule, udevRule, "a stick starts nothing", "Install it, or run usb-updater watch.", levelWarn, levelWarn}
	if x.has(p, ruleDirs()) {
		x.ok(checkRule, "%s", x.find(udevRule, ruleDirs()...))
	}
}

// has tells whether the part is there and counts, and says why it does not: of
// files with one name, systemd and udev take that of the first directory.
func (x *doctor) has(p part, dirs []string) bool {
	path := x.find(p.name, dirs...)
	if path == "" {
		x.add(p.absent, p.check, fmt.Sprintf("no %s: %s", p.name, p.harm), p.hint)
		return false
	}
	switch leads, masked := x.follow(path); {
	case masked:
		x.add(p.masked, p.check, fmt.Sprintf("%s is masked: %s", path, p.harm), p.hint)
	case !leads:
		x.add(levelFail, p.check, fmt.Sprintf("%s is a link to nothing: %s", path, p.harm), "Remove the link.")
	default:
		return true
	}
	return false
}

// follow tells whether path leads to a file, below the device's root, and
// whether it is masked: an empty file or a link to /dev/null. What cannot be
// looked at counts as there.
func (x *doctor) follow(path string) (leads, masked bool) {
	for range maxLinks {
		if path == os.DevNull {
			return true, true
		}
		info, err := os.Lstat(x.device.Path(path))
		if err != nil {
			return !errors.Is(err, fs.ErrNotExist), false
		}
		if info.Mode().Type() != fs.ModeSymlink {
			return true, info.Size() == 0
		}
		to, err := os.Readlink(x.device.Path(path))
		if err != nil {
			return true, false
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = filepath.Clean(to)
	}
	return false, false
}

// wanted tells whether a target of that name, or pattern, wants the unit.
func (x *doctor) wanted(unit, target string) bool {
	for _, dir := range unitDirs() {
		if links, _ := filepath.Glob(x.device.Path(filepath.Join(dir, target+".wants", unit))); len(links) > 0 { // the pattern is ours
			return true
		}
	}
	return false
}
