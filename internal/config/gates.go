package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Confirm says how a person agrees to an update.
type Confirm string

// The ways to agree.
const (
	ConfirmNone Confirm = "none" // nobody is asked
	ConfirmFile Confirm = "file" // a program of the owner's makes a file
	ConfirmKey  Confirm = "key"  // a key or a GPIO button is pressed
)

// ConfirmAt says what a person agrees to.
type ConfirmAt string

// What may wait for a person.
const (
	ConfirmInstall ConfirmAt = "install" // nothing is written before
	ConfirmReboot  ConfirmAt = "reboot"  // the update is installed; the reboot waits
)

const (
	// maxWaitSeconds bounds how long a run may stand at a gate.
	maxWaitSeconds = 24 * 60 * 60
	// maxKey is the largest code of a key (source: Linux, KEY_MAX).
	maxKey = 0x2ff
	// maxBuses bounds the list, and maxBus each name in it, in bytes.
	maxBuses, maxBus = 8, 32
)

func (a Agent) checkGates() error {
	key := a.Confirm == ConfirmKey
	switch {
	case len(a.Buses) == 0 || len(a.Buses) > maxBuses || slices.ContainsFunc(a.Buses, func(s string) bool { return !isBus(s) }):
		return fmt.Errorf("\"Buses\" is %.64q, want the kernel's names of 1 to %d buses", a.Buses, maxBuses)
	case a.InhibitWaitSeconds < 0 || a.InhibitWaitSeconds > maxWaitSeconds:
		return fmt.Errorf("\"InhibitWaitSeconds\" is %d, want 0 to %d", a.InhibitWaitSeconds, maxWaitSeconds)
	case a.MinBatteryPercent < 0 || a.MinBatteryPercent > 100:
		return fmt.Errorf("\"MinBatteryPercent\" is %d, want 0 to 100", a.MinBatteryPercent)
	case !slices.Contains([]Confirm{ConfirmNone, ConfirmFile, ConfirmKey}, a.Confirm):
		return fmt.Errorf("\"Confirm\" is %.64q, want %q, %q or %q", a.Confirm, ConfirmNone, ConfirmFile, ConfirmKey)
	case a.ConfirmAt != ConfirmInstall && a.ConfirmAt != ConfirmReboot:
		return fmt.Errorf("\"ConfirmAt\" is %.64q, want %q or %q", a.ConfirmAt, ConfirmInstall, ConfirmReboot)
	case a.ConfirmTimeoutSeconds < 1 || a.ConfirmTimeoutSeconds > maxWaitSeconds:
		return fmt.Errorf("\"ConfirmTimeoutSeconds\" is %d, want 1 to %d", a.ConfirmTimeoutSeconds, maxWaitSeconds)
	case key && (!filepath.IsAbs(a.ConfirmDevice) || a.ConfirmKey < 1 || a.ConfirmKey > maxKey):
		return fmt.Errorf("\"ConfirmDevice\" is %.64q and \"ConfirmKey\" is %d, want an absolute path and 1 to %d", a.ConfirmDevice, a.ConfirmKey, maxKey)
	case !key && (a.ConfirmDevice != "" || a.ConfirmKey != 0):
		return fmt.Errorf("\"ConfirmDevice\" or \"ConfirmKey\" is set, but \"Confirm\" is %q, not %q", a.Confirm, ConfirmKey)
	}
	return nil
}

func isBus(s string) bool {
	return s != "" && len(s) <= maxBus && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// InhibitWait is how long an install waits for the lock against updates.
func (a Agent) InhibitWait() time.Duration { return time.Duration(a.InhibitWaitSeconds) * time.Second }

// ConfirmTimeout bounds the wait for a person.
func (a Agent) ConfirmTimeout() time.Duration {
	return time.Duration(a.ConfirmTimeoutSeconds) * time.Second
}
