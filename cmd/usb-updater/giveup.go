package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/report"
)

const (
	// leaveLimit bounds everything that is done before the reboot. Scripts of a
	// rollback may hang; the reboot alone already leads back.
	leaveLimit = 2 * time.Minute
	// leaveLockWait is how long a run that holds the lock may take: somebody
	// may be committing by hand, with a slow state script.
	leaveLockWait = 10 * time.Minute
	// maxGiveUps bounds the reboots in which nothing is changed. A boot loader
	// that does as it should needs one.
	maxGiveUps = 2
)

// leaveTrial ends a trial that could not be judged: the new system may have a
// configuration that does not parse, a data partition that is full or missing,
// or a program that hangs. It rolls back as far as that is possible, keeps why,
// and reboots. An open trial that is not confirmed ends with the reboot even if
// nothing could be written:
//
//	rolled back, recorded       the old slot boots for good; status there says why
//	rolled back, not recorded   the old slot boots for good; the black box says why, if it could be written
//	nothing written             the boot loader goes back, as after a power cut
//
// Where no trial is open it changes nothing and returns code and cause: an agent
// in trouble must not reboot a system that was committed.
func (a *agent) leaveTrial(ctx context.Context, cause error, code report.Code) (report.Code, error) {
	d := device.OpenBroken(a.opts)
	reboot := func() error { return a.startReboot(ctx, d, rebootWish{why: "leave a trial that could not be judged"}) }
	a.lockWait = leaveLockWait
	store, storeErr := a.openStore(ctx, d)
	if storeErr == nil {
		defer func() { _ = store.Close() }() // what was written is durable already
	}
	left, open, err := a.leave(ctx, d, store, storeErr, cause, reboot)
	if !open {
		if a.giveUp && err == nil {
			return code, nil // nothing was open: the boot check's own error was told by itself
		}
		return code, errors.Join(cause, err)
	}
	res := result{code: report.HealthFailed, artifact: left, err: errors.Join(err, install.ErrRolledBack)}
	if storeErr == nil {
		a.remember(d, store, res)
	}
	return res.code, errors.Join(res.err, reboot())
}

// leave rolls back, if a trial is open, and returns whether one was, and the
// name of its artifact as far as that is known. The error then begins with the
// cause.
func (a *agent) leave(
	ctx context.Context, d *device.Device, store *state.Store, storeErr, cause error, reboot func() error,
) (artifact string, open bool, err error) {
	var records install.Store = lostStore{d.DataDir(), storeErr}
	if storeErr == nil {
		records = store
	}
	e := d.Engine(records)
	action, r, err := e.Inspect(ctx)
	switch {
	case err != nil:
		return a.leaveBlind(ctx, d, errors.Join(cause, err))
	case action != install.ActionDecide && action != install.ActionRollback:
		return "", false, storeErr
	}
	why := cause
	if r.Pending != nil {
		if stage := e.BlackBox.Explain(*r.Pending); stage != "" { // the rollback ends the black box
			why = fmt.Errorf("%w; %s", cause, stage)
		}
	}
	a.noteGiveUp(d, r, oneLine(cause))
	if errors.Is(storeErr, state.ErrLocked) {
		return nameOf(r), true, errors.Join(why, storeErr) // another run is at work on it, and hangs
	}
	hangs := time.AfterFunc(leaveLimit, func() { _ = reboot() })
	defer hangs.Stop()
	_, err = e.Rollback(ctx, oneLine(why))
	return nameOf(r), true, errors.Join(why, err)
}

// leaveBlind decides without slots. The boot environment says whether a trial is
// open; where that cannot be read either, the record does, once.
func (a *agent) leaveBlind(ctx context.Context, d *device.Device, cause error) (artifact string, open bool, err error) {
	r, err := state.Read(d.DataDir())
	if err != nil {
		r = state.Record{}
	}
	if r.Pending != nil && r.Pending.BootID != "" && r.Pending.BootID == d.BootID() {
		return "", false, nil // armed in this very boot: this is not the new system
	}
	open, envErr := d.TrialOpen(ctx)
	if envErr == nil && !open {
		return "", false, nil
	}
	gaveUp := 0
	stages, err := state.ReadBlackBox(d.DataDir())
	for _, s := range stages {
		if s.Name == state.StageGaveUp {
			gaveUp++
		}
	}
	written := a.noteGiveUp(d, r, oneLine(cause))
	switch {
	case envErr == nil && gaveUp < maxGiveUps:
		return nameOf(r), true, errors.Join(cause, err)
	case envErr != nil && r.Pending != nil && r.Pending.BootID != "" && d.BootID() != "" && gaveUp == 0 && written:
		return nameOf(r), true, errors.Join(cause, err, envErr)
	}
	return "", false, fmt.Errorf("a trial may be open, and is left open: %w", errors.Join(err, envErr))
}

// noteGiveUp tells whether it could be written.
func (a *agent) noteGiveUp(d *device.Device, r state.Record, reason string) bool {
	n := &notes{a: a, dir: d.DataDir(), bootID: d.BootID()}
	if r.Pending != nil {
		n.digest = r.Pending.ManifestDigest
	}
	err := state.AppendBlackBox(n.dir, n.stage(state.StageGaveUp, reason))
	n.tell(err)
	return err == nil
}

// lostStore is a record that cannot be written: its medium is full, read-only
// or missing. What can be read of it still names the update; else the boot
// environment knows enough.
type lostStore struct {
	dir string
	err error
}

// Load implements install.Store.
func (s lostStore) Load() (state.Record, error) {
	r, _ := state.Read(s.dir)
	return r, nil
}

// Save implements install.Store.
func (s lostStore) Save(state.Record) error { return s.err }
