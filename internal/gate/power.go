package gate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrLowBattery reports a battery that may not last until the update is done.
var ErrLowBattery = errors.New("battery is low and no external power is connected")

const (
	// maxSupplies bounds how many power supplies are looked at.
	maxSupplies = 64
	// maxAttribute bounds an attribute in sysfs, in bytes.
	maxAttribute = 64
)

// CheckPower returns [ErrLowBattery] if the device runs on a battery that
// holds less than minPercent of its capacity. dir is usually
// "/sys/class/power_supply". A device without a battery passes, and so does
// one with external power; a battery of an accessory (a mouse) is none.
//
// With several batteries the fullest one counts. A battery that does not tell
// its capacity, while no external power is connected, is an error: the gate
// exists, and nobody knows whether it is open
// (source: Linux, Documentation/ABI/testing/sysfs-class-power).
func CheckPower(dir string, minPercent int) error {
	if minPercent <= 0 {
		return nil
	}
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the kernel knows of no power supply
	}
	if err != nil {
		return fmt.Errorf("power supply: %w", err)
	}
	defer f.Close() // read only
	names, err := f.Readdirnames(maxSupplies)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("power supply: %w", err)
	}
	best, unknown := -1, error(nil)
	for _, name := range names {
		supply := filepath.Join(dir, name)
		kind, err := attribute(supply, "type")
		if err != nil {
			return fmt.Errorf("power supply %.64q: %w", name, err)
		}
		if kind != "Battery" && kind != "UPS" {
			if online, err := attribute(supply, "online"); err == nil && online != "0" {
				return nil // mains, USB, wireless: power comes from outside
			}
			continue
		}
		switch scope, err := attribute(supply, "scope"); {
		case err == nil && scope == "Device":
			continue // of an accessory
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("power supply %.64q: %w", name, err)
		}
		if present, err := attribute(supply, "present"); err == nil && present == "0" {
			continue // an empty battery bay
		}
		percent, err := capacity(supply)
		if err != nil {
			unknown = fmt.Errorf("power supply %.64q: %w", name, err)
			continue
		}
		best = max(best, percent)
	}
	switch {
	case best >= minPercent, best < 0 && unknown == nil:
		return nil
	case best < 0:
		return unknown
	}
	return fmt.Errorf("%w: %d %%, want %d %%", ErrLowBattery, best, minPercent)
}

// capacity is how full a battery is, in percent.
func capacity(supply string) (int, error) {
	text, err := attribute(supply, "capacity")
	if err != nil {
		return 0, err
	}
	percent, err := strconv.Atoi(text)
	if err != nil || percent < 0 {
		return 0, fmt.Errorf("capacity is %.64q", text)
	}
	return percent, nil
}

func attribute(dir, name string) (string, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	defer f.Close() // read only
	b, err := io.ReadAll(io.LimitReader(f, maxAttribute))
	return strings.TrimSpace(string(b)), err
}
