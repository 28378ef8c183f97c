package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/report"
)

// update is the whole job, from a block device to the reboot:
//
//	stick → candidates → decision → artifact → plan → slot → boot env → reboot
//
// Everything up to plan may refuse and has written nothing.
func (a *agent) update(ctx context.Context) (report.Code, error) {
	d, err := device.Open(a.opts)
	if err != nil {
		return report.ConfigFailed, err
	}
	return a.withEngine(ctx, d, func(e *install.Engine, store *state.Store) (report.Code, error) {
		if a.dryRun { // looks, and closes nothing
			if action, _, err := e.Inspect(ctx); err != nil || action != install.ActionNone {
				return codeOf(err, report.Pending), errors.Join(err, errors.New("dry run: an update is not closed yet: "+action.String()))
			}
		} else {
			a.closeFirst(ctx, d, e, store)
			if err := e.Ready(ctx); err != nil {
				return a.notReady(d, store, err)
			}
		}
		self, err := a.profile(d, e.Slots)
		if err != nil {
			return report.ConfigFailed, err
		}
		stick, err := a.openStick(ctx, self)
		if err != nil {
			return codeOf(err, report.StickFailed), err
		}
		defer stick.Close() // its private mount ends with the process at the latest
		candidates, err := a.candidates(ctx, self, stick)
		if err != nil {
			return codeOf(err, report.StickFailed), err
		}
		decision := decide(self, candidates)
		a.explain(decision, candidates)
		if decision.Chosen < 0 {
			return refusal(decision)
		}
		chosen := candidates[decision.Chosen]
		art, file, err := reopen(ctx, self, stick, chosen)
		if err != nil {
			return codeOf(err, report.StickFailed), err
		}
		defer file.Close() // read only
		plan, err := e.Plan(ctx, art)
		if err != nil {
			return codeOf(err, report.Refused), err
		}
		if a.dryRun {
			a.log.Info().Str("artifact", chosen.header.Name).Msg("dry run: this artifact would be installed")
			return report.OK, nil
		}
		code, out, err := a.install(ctx, d, e, plan)
		if err == nil && !out.Committed && !out.NeedsReboot {
			// What an update module installed takes effect at once, and is
			// judged at once. A slot comes here after its reboot, in boot-check.
			code, err = a.judgePending(ctx, d, e, store)
		}
		a.remember(d, store, result{code: code, artifact: chosen.header.Name, err: err})
		if err != nil || !out.NeedsReboot {
			return code, err
		}
		argument := ""
		if plan.Slotted() { // with it, the reboot would go to the other slot
			argument = e.RebootArgument()
		}
		return a.reboot(d, "try the new system", argument)
	})
}

// notReady ends a run on a device that cannot take an update now. A trial that
// had to be undone on the way needs its reboot.
func (a *agent) notReady(d *device.Device, store *state.Store, err error) (report.Code, error) {
	if !errors.Is(err, install.ErrRolledBack) {
		return codeOf(err, report.BootEnvFailed), err
	}
	a.remember(d, store, result{code: report.TrialFailed, err: err})
	if _, rebootErr := a.reboot(d, "return to the previous system", ""); rebootErr != nil {
		err = errors.Join(err, rebootErr)
	}
	return report.TrialFailed, err
}

// install writes the slot and arms the boot loader for it, or has the update
// module install its payload.
func (a *agent) install(ctx context.Context, d *device.Device, e *install.Engine, plan *install.Plan) (report.Code, install.Outcome, error) {
	h := plan.Header()
	where, otherwise := plan.Target.String(), report.SlotFailed
	if !plan.Slotted() {
		where, otherwise = "none", report.ModuleFailed
	}
	chosen := a.event(report.KindChosen)
	chosen.Artifact, chosen.Total = h.Name, plan.File.Size
	if plan.Slotted() {
		chosen.Slot = where
	} else {
		chosen.Module = orNone(h.PayloadType)
	}
	a.say(chosen)
	e.Report = a.progress()
	written, err := e.Write(ctx, plan)
	if err != nil {
		return codeOf(err, otherwise), install.Outcome{}, err
	}
	if plan.Slotted() {
		otherwise = report.BootEnvFailed
		if err := d.StartBlackBox(fmt.Sprintf("%x", h.ManifestDigest)); err != nil {
			a.log.Warn().Err(err).Msg("a failed trial may not be able to say why")
		}
	}
	out, err := e.Arm(ctx, written)
	switch {
	case errors.Is(err, install.ErrCommittedWithErrors):
		return report.CommittedWithErrors, out, err
	case err != nil:
		return codeOf(err, otherwise), out, err
	case out.Committed:
		a.log.Info().Str("artifact", h.Name).Msg("installed and committed")
	case out.NeedsReboot:
		a.log.Info().Str("artifact", h.Name).Str("slot", where).Msg("installed; the next boot tries it")
	default:
		a.log.Info().Str("artifact", h.Name).Msg("installed; to be judged now")
	}
	return report.OK, out, nil
}

// lockPause is the time between two tries to get the lock.
const lockPause = 200 * time.Millisecond

// openStore locks the store. It waits for another run as long as a.lockWait
// says: a trial must be judged, whoever else is looking at the device.
func (a *agent) openStore(d *device.Device) (*state.Store, error) {
	deadline := time.Now().Add(a.lockWait)
	for {
		store, err := d.OpenStore()
		if !errors.Is(err, state.ErrLocked) || !time.Now().Before(deadline) {
			return store, err
		}
		time.Sleep(lockPause)
	}
}

// withEngine runs do under the device's lock, and tells how it ended.
func (a *agent) withEngine(ctx context.Context, d *device.Device, do func(*install.Engine, *state.Store) (report.Code, error)) (code report.Code, err error) {
	store, err := a.openStore(d)
	if errors.Is(err, state.ErrLocked) {
		return report.Busy, err
	}
	if err != nil {
		return report.StateFailed, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	a.speak(d)
	code, err = a.operate(d, store, do)
	return a.conclude(ctx, d, code, err)
}

// operate runs do with the device's engine.
func (a *agent) operate(d *device.Device, store *state.Store, do func(*install.Engine, *state.Store) (report.Code, error)) (report.Code, error) {
	e, err := d.Engine(store)
	if err == nil {
		err = e.NoSlots // the agent is for devices that have a way back
	}
	if err != nil {
		return report.ConfigFailed, err
	}
	e.Report = a.progress()
	return do(e, store)
}

// remember keeps how the run ended, for status and for the history. A failure
// to do so is told, but changes no outcome.
func (a *agent) remember(d *device.Device, store *state.Store, res result) {
	if a.tell != nil {
		a.tell.remembered = true
	}
	if err := res.save(d, store); err != nil {
		a.log.Warn().Err(err).Msg("the result could not be recorded")
	}
}

// rebootFile tells the driver of a simulated device that a reboot is wanted.
// It holds the reboot argument.
const rebootFile = "reboot-requested"

func simulateReboot(d *device.Device, argument string) error {
	if err := os.MkdirAll(d.RunDir(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.WriteFile(d.RunDir()+"/"+rebootFile, []byte(argument), 0o600)
}
