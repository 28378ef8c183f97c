package main

import (
	"context"
	"errors"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/report"
	"github.com/usb-updater/usb-updater/internal/watch"
)

// scan runs for every stick that is plugged in, one after the other, until one
// of them changes something or an update is pending. It prints how each ended.
func (a *agent) scan(ctx context.Context) (report.Code, error) {
	d, err := device.Open(a.opts)
	if err != nil {
		return report.ConfigFailed, err
	}
	found, err := watch.Scan(d.Path("/sys"))
	if err != nil {
		return report.Failed, err
	}
	devices, leftOut := watch.Limit(found)
	if len(leftOut) > 0 {
		a.log.Warn().Int("left_out", len(leftOut)).Msg(errTooMany.Error())
	}
	return a.runForAll(ctx, devices, func(ctx context.Context, dev watch.Device) report.Code {
		code := a.runFor(ctx, dev)
		a.print("%-10s  %s (%d)\n", dev.Name, code.Name, code.Number)
		return code
	})
}

// runForAll tells how runs for several sticks ended together: with the first
// one that ends the matter, else with the first failure, else with what the
// sticks hold.
func (a *agent) runForAll(ctx context.Context, devices []watch.Device, run func(context.Context, watch.Device) report.Code) (report.Code, error) {
	if len(devices) == 0 {
		return report.NoArtifact, errors.New("no stick is plugged in")
	}
	all := report.NoArtifact
	for _, dev := range devices {
		code := run(ctx, dev)
		switch {
		case ctx.Err() != nil:
			return report.Canceled, context.Cause(ctx)
		case code == report.OK, code == report.Pending:
			return code, nil
		case all == report.NoArtifact, all == report.UpToDate && !code.Quiet():
			all = code
		}
	}
	return all, nil
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
		if code := a.runFor(ctx, dev); code == report.OK {
			return code, nil
		}
	}
}

// runFor is the run for one device. It stands in the same queue as those that
// udev starts, and ends when its stick is pulled out. An unusable stick is told
// and ends nothing.
func (a *agent) runFor(ctx context.Context, dev watch.Device) report.Code {
	one := *a
	one.args, one.name = []string{dev.Name}, verbRun
	a.log.Info().Str("blockdev", dev.Name).Msg("stick found")
	code, err := one.update(ctx)
	code = final(ctx, code)
	one.end(ctx, code, err)
	return code
}
