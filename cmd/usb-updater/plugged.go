package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usb-updater/usb-updater/internal/atomicfile"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/mount"
)

// pluggedFile names, in the run directory, the block devices that are no news:
// those that the boot check has found, and those that a run has looked at. It
// goes with the boot. Where it is missing nothing is news.
const pluggedFile = "plugged-in"

// notePlugged keeps what is plugged in when a boot was judged. A stick that comes
// later comes by a person's hand, or so it seems: one that takes minutes to appear
// looks the same, so that nothing may rest on it alone (see policy.Decide).
func (a *agent) notePlugged(d *device.Device) {
	names, err := mount.Appearances(d.Path("/sys"))
	if errors.Is(err, fs.ErrNotExist) && d.Simulated() {
		err = nil // its sticks are directories
	}
	path := filepath.Join(d.RunDir(), pluggedFile)
	if err == nil {
		err = os.MkdirAll(d.RunDir(), 0o755)
	}
	if err == nil {
		err = atomicfile.Write(path, []byte(strings.Join(append(names, ""), "\n")), 0o600)
	}
	if err != nil {
		a.log.Warn().Err(errors.Join(err, ignoreMissing(os.Remove(path)))).Msg("which sticks are plugged in could not be kept")
	}
}

// pluggedIn tells whether a person has plugged the stick in while the device was
// running, and nobody has looked at it yet. From now on somebody has.
func (a *agent) pluggedIn(d *device.Device, stick *mount.Stick) bool {
	path := filepath.Join(d.RunDir(), pluggedFile)
	name, err := appearance(stick, path)
	if err != nil || name == "" {
		return false
	}
	seen, err := os.ReadFile(path)
	if err != nil || slices.Contains(strings.Split(string(seen), "\n"), name) {
		return false
	}
	if a.dryRun {
		return true
	}
	if err := atomicfile.Append(path, []byte(name), 0o600); err != nil {
		a.log.Warn().Err(err).Msg("which sticks are plugged in could not be kept")
		return false
	}
	return true
}

// appearance names the stick as it is plugged in now, "" if it was when the list
// was made. A directory, which stands in for a stick on a simulated device, is
// plugged in when it changes.
func appearance(stick *mount.Stick, list string) (string, error) {
	if stick.Dev != 0 {
		return stick.Appearance(), nil
	}
	dir, err := os.Stat(stick.Name)
	note, noteErr := os.Stat(list)
	if err := cmp.Or(err, noteErr); err != nil || !dir.ModTime().After(note.ModTime()) {
		return "", err
	}
	return fmt.Sprintf("%q %d", stick.Name, dir.ModTime().UnixNano()), nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
