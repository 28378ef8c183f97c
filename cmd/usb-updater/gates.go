package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/usb-updater/usb-updater/internal/config"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/gate"
)

const (
	// noRunsFile keeps runs from starting while it is in the run directory. The
	// unit asks for it, too, so that no process is started.
	noRunsFile = "inhibit"
	// inhibitFile is the lock of the owner's programs, in the run directory.
	inhibitFile = "inhibit.lock"
	// confirmFile agrees to an update, in the run directory.
	confirmFile = "confirm"
	// powerDir is where the kernel shows batteries.
	powerDir = "/sys/class/power_supply"
)

// errHeldOff means that somebody wants no run to start.
var errHeldOff = errors.New("updates are held off")

// heldOff tells whether a run may start. What cannot be looked up holds it off.
func heldOff(d *device.Device) error {
	path := filepath.Join(d.RunDir(), noRunsFile)
	switch _, err := os.Lstat(path); {
	case err == nil:
		return fmt.Errorf("%w: %s is there", errHeldOff, path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return fmt.Errorf("%w: %w", errHeldOff, err)
	}
}

// holds are what an install keeps away from the device while it works.
type holds []io.Closer

// release lets go of all, the latest first.
func (h holds) release() error {
	var err error
	for _, hold := range slices.Backward(h) {
		err = errors.Join(err, hold.Close())
	}
	return err
}

// passGates asks everything on the device that may object to an install, and
// keeps it from changing its mind until the holds are released. Nothing was
// written yet.
func (a *agent) passGates(ctx context.Context, d *device.Device) (holds, error) {
	// First, so that nobody is asked in vain; and last, because it may have
	// taken a while until somebody agreed.
	if err := gate.CheckPower(d.Path(powerDir), d.Agent.MinBatteryPercent); err != nil {
		return nil, err
	}
	if err := a.confirm(ctx, d, config.ConfirmInstall); err != nil {
		return nil, err
	}
	lock, err := gate.AcquireLock(ctx, filepath.Join(d.RunDir(), inhibitFile), d.Agent.InhibitWait(), func() {
		a.log.Info().Str("lock", inhibitFile).Msg("waiting for a program that holds off updates")
	})
	if err != nil {
		return nil, err
	}
	held := holds{closer(lock.Release)}
	err = errors.Join(gate.CheckPower(d.Path(powerDir), d.Agent.MinBatteryPercent), d.CheckManaged())
	if err != nil {
		return nil, errors.Join(err, held.release())
	}
	if !d.Agent.InhibitShutdown || d.Simulated() {
		return held, nil
	}
	shutdown, err := gate.InhibitShutdown(ctx, "an update is being installed")
	if err != nil {
		// A courtesy to the one who presses the button: a power cut at any
		// instant leaves a system that boots.
		a.log.Debug().Err(err).Msg("a shutdown is not held off")
		return held, nil
	}
	return append(held, shutdown), nil
}

// confirm waits for a person to agree, if one has to at this point.
func (a *agent) confirm(ctx context.Context, d *device.Device, at config.ConfirmAt) error {
	c := d.Agent
	if c.Confirm == config.ConfirmNone || c.ConfirmAt != at {
		return nil
	}
	asked := func() {
		a.log.Info().Str("confirm", string(c.Confirm)).Msg("waiting for a person to agree to the " + string(at))
	}
	if c.Confirm == config.ConfirmKey {
		return gate.AwaitKey(ctx, d.Path(c.ConfirmDevice), uint16(c.ConfirmKey), c.ConfirmTimeout(), asked)
	}
	return gate.AwaitFile(ctx, filepath.Join(d.RunDir(), confirmFile), c.ConfirmTimeout(), asked)
}

// closer makes a function an [io.Closer].
type closer func() error

// Close calls the function.
func (c closer) Close() error { return c() }
