package main

import (
	"context"
	"errors"

	"github.com/usb-updater/usb-updater/internal/report"
	"github.com/usb-updater/usb-updater/internal/watch"
)

// scan runs for every stick that is plugged in, one after the other, until one
// of them changes something.
func (a *agent) scan(ctx context.Context) (report.Code, error) {
	devices, err := watch.Scan("/sys")
	if err != nil {
		return report.Failed, err
	}
	for _, dev := range devices {
		if code, err := a.runFor(ctx, dev); code == report.OK || err != nil && ctx.Err() != nil {
			return code, err
		}
	}
	return report.NoArtifact, nil
}

// watch runs for every stick that comes. It is for systems on which no udev
// rule starts a unit. It returns when it is told to, or when the device is
// about to reboot.
func (a *agent) watch(ctx context.Context) (report.Code, error) {
	listener, err := watch.Listen(ctx)
	if err != nil {
		return report.Failed, err
	}
	defer listener.Close()                           // nothing is written
	if code, err := a.scan(ctx); code == report.OK { // sticks that came before the listener
		return code, err
	}
	for {
		dev, err := listener.Next(ctx)
		if errors.Is(err, context.Canceled) {
			return report.OK, nil
		}
		if err != nil {
			return report.Failed, err
		}
		if dev.Action == watch.Remove {
			continue
		}
		if code, err := a.runFor(ctx, dev); code == report.OK {
			return code, err
		}
	}
}

// runFor is the run for one device. An unusable stick is told and ends
// nothing.
func (a *agent) runFor(ctx context.Context, dev watch.Device) (report.Code, error) {
	one := *a
	one.args, one.name = []string{dev.Name}, verbRun
	a.log.Info().Str("blockdev", dev.Name).Msg("stick found")
	code, err := one.update(ctx)
	one.end(ctx, final(ctx, code), err)
	return code, nil
}
