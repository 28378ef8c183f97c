package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
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
	// MinVersion is the lowest version of a root file system that is installed
	// unattended, AllowDowngrade or not; "" is none.
	MinVersion string
	// MaxAttempts is how many failed trials of one artifact are enough.
	MaxAttempts int
	// FileSystems are the types that a stick may have.
	FileSystems []string
	// HealthDir holds the executables that must succeed before a commit.
	HealthDir string
	// HealthTimeoutSeconds bounds each of them.
	HealthTimeoutSeconds int
	// VerifyWritten says what of the slot is read back before it is armed.
	VerifyWritten Verify
	// AllowSingleCopy accepts a boot environment without a second copy, in
	// which a power cut during a write can lose all variables.
	AllowSingleCopy bool
	// BootLoader says how the boot loader is driven: one of [BootLoaders], of
	// which [BootLoaderAuto] finds out.
	BootLoader string
	// BootLoaderProgram is the program that stands for the boot loader if
	// BootLoader is "custom".
	BootLoaderProgram string
	// BootLoaderTimeoutSeconds bounds each run of a program that drives the
	// boot loader.
	BootLoaderTimeoutSeconds int
	// TrybootFile is autoboot.txt; "" looks in the usual places.
	TrybootFile string
	// TrybootPartA and TrybootPartB are the boot partitions of the slots, as
	// autoboot.txt counts them; 0 is none.
	TrybootPartA, TrybootPartB int
	// RAUCNames are the boot names of slots A and B where the boot script is
	// one of RAUC's kind.
	RAUCNames []string
	// RAUCAttempts is how often rauc-uboot's script may start a permanent slot
	// whose starts nobody reports; 0 is without end.
	RAUCAttempts int
	// GRUBEnvFile is the environment block of rauc-grub; "" looks in the usual
	// places.
	GRUBEnvFile string

	// HealthDeadlineSeconds is how long the checks of a trial boot may fail
	// before that is the verdict. With 0 they run once.
	HealthDeadlineSeconds int
	// Health are the checks besides those of HealthDir.
	Health Health

	// LED is the name of a light of the kernel's leds class; "" is none.
	LED string
	// LEDSeconds is how long a run shows its end with it.
	LEDSeconds int
	// Console writes a line for each event to /dev/console.
	Console bool
	// Plymouth shows each event on the boot screen.
	Plymouth bool
	// ProgressSocket lets programs follow a run at a Unix socket.
	ProgressSocket bool
	// Hook is a program that is called for each event; "" is none.
	Hook string
	// HookTimeoutSeconds bounds each of its calls.
	HookTimeoutSeconds int
	// WriteReport leaves a file on the stick that says how the run ended.
	WriteReport bool

	// Gates: what a stick must be, and what must agree before an install.

	// Buses are the buses that a stick may be on.
	Buses []string
	// AllowComposite accepts a stick whose USB device has other interfaces
	// than mass storage.
	AllowComposite bool
	// InhibitShutdown asks logind to hold off a shutdown during an install.
	InhibitShutdown bool
	// InhibitWaitSeconds is how long an install waits for the owner's programs
	// to release the lock against updates.
	InhibitWaitSeconds int
	// MinBatteryPercent is what a battery must hold without external power; 0
	// asks for nothing.
	MinBatteryPercent int
	// Confirm says how a person agrees, and ConfirmAt to what.
	Confirm   Confirm
	ConfirmAt ConfirmAt
	// ConfirmTimeoutSeconds bounds the wait for it.
	ConfirmTimeoutSeconds int
	// ConfirmDevice is the input device, and ConfirmKey the code of the key on
	// it that agrees.
	ConfirmDevice string
	ConfirmKey    int
}

// BootLoaderAuto lets the device say which boot loader it has.
const BootLoaderAuto = "auto"

// BootLoaders returns the values that BootLoader may have.
func BootLoaders() []string {
	return []string{BootLoaderAuto, "uboot", "grub-mender", "rauc-uboot", "rauc-grub", "tryboot", "command", bootLoaderCustom}
}

const bootLoaderCustom = "custom"

// maxBootLoaderSeconds bounds one run of a program that drives the boot loader.
const maxBootLoaderSeconds = 3600

// maxBootPartition is the largest partition number of autoboot.txt that is
// believed.
const maxBootPartition = 255

// DefaultAgent is an absent usb-updater.conf.
func DefaultAgent() Agent {
	return Agent{
		Reboot:                   RebootAuto,
		MaxAttempts:              1,
		FileSystems:              []string{"vfat", "exfat", "ext4", "iso9660"},
		HealthDir:                "/etc/usb-updater/health.d",
		HealthTimeoutSeconds:     60,
		VerifyWritten:            VerifyChanged,
		BootLoader:               BootLoaderAuto,
		BootLoaderTimeoutSeconds: 30,
		RAUCNames:                []string{"A", "B"},
		HealthDeadlineSeconds:    120,
		Health:                   defaultHealth(),
		LEDSeconds:               30,
		ProgressSocket:           true,
		HookTimeoutSeconds:       5,
		Buses:                    []string{"usb"},
		InhibitShutdown:          true,
		InhibitWaitSeconds:       600,
		MinBatteryPercent:        30,
		Confirm:                  ConfirmNone,
		ConfirmAt:                ConfirmInstall,
		ConfirmTimeoutSeconds:    600,
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
	case len(a.FileSystems) == 0:
		return fmt.Errorf("\"FileSystems\" is empty, so no stick can be read")
	case !filepath.IsAbs(a.HealthDir):
		return fmt.Errorf("\"HealthDir\" is %q, want an absolute path", a.HealthDir)
	}
	if err := a.checkBootLoader(); err != nil {
		return err
	}
	if err := a.checkHealth(); err != nil {
		return err
	}
	if err := a.checkReporting(); err != nil {
		return err
	}
	return a.checkGates()
}

func (a Agent) checkBootLoader() error {
	custom := a.BootLoader == bootLoaderCustom
	switch {
	case !slices.Contains(BootLoaders(), a.BootLoader):
		return fmt.Errorf("\"BootLoader\" is %.64q, want one of %q", a.BootLoader, BootLoaders())
	case custom && !filepath.IsAbs(a.BootLoaderProgram):
		return fmt.Errorf("\"BootLoaderProgram\" is %.64q, want an absolute path", a.BootLoaderProgram)
	case !custom && a.BootLoaderProgram != "":
		return fmt.Errorf("\"BootLoaderProgram\" is set, but \"BootLoader\" is %q, not \"custom\"", a.BootLoader)
	case a.BootLoaderTimeoutSeconds < 1 || a.BootLoaderTimeoutSeconds > maxBootLoaderSeconds:
		return fmt.Errorf("\"BootLoaderTimeoutSeconds\" is %d, want 1 to %d", a.BootLoaderTimeoutSeconds, maxBootLoaderSeconds)
	case a.TrybootFile != "" && !filepath.IsAbs(a.TrybootFile):
		return fmt.Errorf("\"TrybootFile\" is %.64q, want an absolute path", a.TrybootFile)
	case len(a.RAUCNames) != 2 || !isRAUCName(a.RAUCNames[0]) || !isRAUCName(a.RAUCNames[1]) || a.RAUCNames[0] == a.RAUCNames[1]:
		return fmt.Errorf("\"RAUCNames\" is %.64q, want the boot names of two slots", a.RAUCNames)
	case a.RAUCAttempts < 0 || a.RAUCAttempts > maxRAUCAttempts:
		return fmt.Errorf("\"RAUCAttempts\" is %d, want 0 to %d", a.RAUCAttempts, maxRAUCAttempts)
	case a.GRUBEnvFile != "" && !filepath.IsAbs(a.GRUBEnvFile):
		return fmt.Errorf("\"GRUBEnvFile\" is %.64q, want an absolute path", a.GRUBEnvFile)
	case a.TrybootPartA == 0 && a.TrybootPartB == 0:
		return nil
	case min(a.TrybootPartA, a.TrybootPartB) < 1 || max(a.TrybootPartA, a.TrybootPartB) > maxBootPartition || a.TrybootPartA == a.TrybootPartB:
		return fmt.Errorf("\"TrybootPartA\" is %d and \"TrybootPartB\" is %d, want two partition numbers", a.TrybootPartA, a.TrybootPartB)
	}
	return nil
}

// maxRAUCAttempts is what every boot script can count.
const maxRAUCAttempts = 1<<31 - 1

// isRAUCName reports whether s can be part of a boot loader's variable.
func isRAUCName(s string) bool {
	const maxName = 32
	return s != "" && len(s) <= maxName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// BootLoaderTimeout bounds each run of a program that drives the boot loader.
func (a Agent) BootLoaderTimeout() time.Duration {
	return time.Duration(a.BootLoaderTimeoutSeconds) * time.Second
}

// HealthTimeout bounds one health check.
func (a Agent) HealthTimeout() time.Duration {
	return time.Duration(a.HealthTimeoutSeconds) * time.Second
}
