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
	if err := heldOff(d); err != nil {
		return report.Inhibited, err
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
// rule starts a unit. It goes on until it is told to stop; the reboot for an
// update is one way to do so.
func (a *agent) watch(ctx context.Context) (report.Code, error) {
	d, err := device.Open(a.opts)
	if err != nil {
		return report.ConfigFailed, err
	}
	listener, err := watch.Listen(ctx)
	if err != nil {
		return report.Failed, err
	}
	defer listener.Close() // nothing is written
	// Sticks that came before the listener. Each one was told; that there is
	// none is no news.
	held := a.whileHeldOff(d)
	if !held() {
		if code, err := a.scan(ctx); err != nil && !code.Quiet() && ctx.Err() == nil {
			return code, err
		}
	}
	return a.watchEvents(ctx, listener.Next, func(ctx context.Context, dev watch.Device) report.Code {
		if held() {
			return report.Inhibited
		}
		return a.runFor(ctx, dev)
	})
}

// whileHeldOff returns a function that asks whether runs are held off, and says
// so once until they are not any more: each partition of each stick asks.
func (a *agent) whileHeldOff(d *device.Device) func() bool {
	told := false
	return func() bool {
		err := heldOff(d)
		if err != nil && !told {
			a.log.Warn().Err(err).Msg("sticks are not looked at")
		}
		told = err != nil
		return told
	}
}

// watchEvents runs for each event of next until ctx ends.
func (a *agent) watchEvents(
	ctx context.Context, next func(context.Context) (watch.Device, error), run func(context.Context, watch.Device) report.Code,
) (report.Code, error) {
	for {
		dev, err := next(ctx)
		switch {
		case errors.Is(err, context.Canceled):
			return report.OK, nil
		case err != nil:
			return report.Failed, err
		case dev.Action != watch.Remove:
			run(ctx, dev) // what it found is told, and ends nothing
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
