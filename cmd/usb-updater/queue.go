package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/gate"
	"github.com/usb-updater/usb-updater/internal/report"
)

const (
	// queueFile is the lock that runs stand in line for, in the run directory.
	queueFile = "queue.lock"
	// queueWait bounds the time in line. It is longer than most installs, and
	// short enough for a unit that must end.
	queueWait = 15 * time.Minute
)

// inQueue runs do when no other run works on the device. Each stick and each
// partition has a run of its own; one installs, and those behind it find out
// before they read their stick. It waits for a.queueWait at most.
func (a *agent) inQueue(ctx context.Context, d *device.Device, do func() (report.Code, error)) (code report.Code, err error) {
	lock, err := gate.AcquireLock(ctx, filepath.Join(d.RunDir(), queueFile), a.queueWait, func() {
		a.log.Info().Msg("waiting for another run to end")
		report.Status("waiting for another run to end")
	})
	switch {
	case errors.Is(err, gate.ErrLocked):
		return report.Busy, err
	case err != nil:
		return codeOf(err, report.Failed), err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	return do()
}
