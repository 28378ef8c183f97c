package config

import (
	"fmt"
	"path/filepath"
	"time"
)

// DefaultAgentFile is where the agent's configuration is.
const DefaultAgentFile = "/etc/usb-updater/usb-updater.conf"

// Reboot says what the agent does when a reboot is due.
type Reboot string

// The reboot policies.
const (
	RebootAuto  Reboot = "auto"  // reboot at once
	RebootNever Reboot = "never" // leave it to somebody else
)

// Agent is usb-updater.conf.
type Agent struct {
	Reboot Reboot
	// AllowUnsigned lets an artifact without a verified signature install
	// unattended.
	AllowUnsigned bool
	// AllowDowngrade lets an older release replace a newer one unattended.
	AllowDowngrade bool
	// MaxAttempts is how many failed trials of one artifact are enough.
	MaxAttempts int
	// FileSystems are the types that a stick may have.
	FileSystems []string
	// HealthDir holds the executables that must succeed before a commit.
	HealthDir string
	// HealthTimeoutSeconds bounds each of them.
	HealthTimeoutSeconds int
	// VerifyWritten reads the slot back before it is armed.
	VerifyWritten bool
	// AllowSingleCopy accepts a boot environment without a second copy, in
	// which a power cut during a write can lose all variables.
	AllowSingleCopy bool
}

// DefaultAgent is an absent usb-updater.conf.
func DefaultAgent() Agent {
	return Agent{
		Reboot:               RebootAuto,
		MaxAttempts:          1,
		FileSystems:          []string{"vfat", "exfat", "ext4", "iso9660"},
		HealthDir:            "/etc/usb-updater/health.d",
		HealthTimeoutSeconds: 60,
		VerifyWritten:        true,
	}
}

// LoadAgent reads the file at path over the defaults.
func LoadAgent(path string, required bool) (Agent, error) {
	a := DefaultAgent()
	if err := decodeFile(path, required, true, &a); err != nil {
		return Agent{}, err
	}
	if err := a.check(); err != nil {
		return Agent{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return a, nil
}

func (a Agent) check() error {
	switch {
	case a.Reboot != RebootAuto && a.Reboot != RebootNever:
		return fmt.Errorf("\"Reboot\" is %q, want %q or %q", a.Reboot, RebootAuto, RebootNever)
	case a.MaxAttempts < 1:
		return fmt.Errorf("\"MaxAttempts\" is %d, want at least 1", a.MaxAttempts)
	case a.HealthTimeoutSeconds < 1:
		return fmt.Errorf("\"HealthTimeoutSeconds\" is %d, want at least 1", a.HealthTimeoutSeconds)
	case len(a.FileSystems) == 0:
		return fmt.Errorf("\"FileSystems\" is empty, so no stick can be read")
	case !filepath.IsAbs(a.HealthDir):
		return fmt.Errorf("\"HealthDir\" is %q, want an absolute path", a.HealthDir)
	}
	return nil
}

// HealthTimeout bounds one health check.
func (a Agent) HealthTimeout() time.Duration {
	return time.Duration(a.HealthTimeoutSeconds) * time.Second
}
