package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/usb-updater/usb-updater/internal/config"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/report"
)

// update is the whole job, from a block device to the reboot:
//
//	queue → stick → candidates → decision → artifact → plan → gates → slot → boot env → reboot
//
// Everything up to gates may refuse and has written nothing.
func (a *agent) update(ctx context.Context) (report.Code, error) {
	d, err := device.Open(a.opts)
	if err != nil {
		return report.ConfigFailed, err
	}
	if err := heldOff(d); err != nil {
		return report.Inhibited, err
	}
	code, err := a.inQueue(ctx, d, func() (code report.Code, err error) {
		return a.withEngine(ctx, d, func(e *install.Engine, store *state.Store) (report.Code, error) {
			return a.updateWith(ctx, d, e, store)
		})
	})
	if a.tell == nil || a.tell.wish == nil {
		return code, err
	}
	// The locks are released: whoever comes now finds an update that waits for
	// its reboot, and leaves it alone.
	if err := a.confirm(ctx, d, config.ConfirmReboot); err != nil {
		a.log.Warn().Err(err).Msg("not rebooting; the next boot tries the new system")
		return code, nil
	}
	return a.follow(ctx, d, code, err)
}

// updateWith is the part of the job that needs the device for itself.
func (a *agent) updateWith(ctx context.Context, d *device.Device, e *install.Engine, store *state.Store) (report.Code, error) {
	if a.dryRun { // looks, and closes nothing
		if action, _, err := e.Inspect(ctx); err != nil || action != install.ActionNone {
			return codeOf(err, report.Pending), errors.Join(err, errors.New("dry run: an update is not closed yet: "+action.String()))
		}
	} else {
		a.closeFirst(ctx, d, e, store)
		if err := e.Ready(ctx); err != nil {
			return a.notReady(d, store, err)
		}
		d.Bootstrap(ctx, e)
	}
	self, err := a.profile(d, e.Slots)
	if err != nil {
		return report.ConfigFailed, err
	}
	stick, err := a.openStick(ctx, self, false)
	if err != nil {
		return codeOf(err, report.StickFailed), err
	}
	defer stick.Close() // its private mount ends with the process at the latest
	self.pluggedIn = a.pluggedIn(d, stick)
	var job job
	defer func() { a.letGo(job.held) }()
	code, err := a.whilePlugged(ctx, stick.Check, func(ctx context.Context) (report.Code, error) {
		return a.fromStick(ctx, self, e, stick, &job)
	})
	if code == report.StickRemoved && job.writing && job.plan.Slotted() {
		err = fmt.Errorf("%w while slot %s was written: the running system is untouched, and the next run skips what is right already", err, job.plan.Target)
	}
	var out install.Outcome
	if err == nil && job.written != nil {
		code, out, err = a.arm(ctx, d, e, job)
		if err == nil && !out.Committed && !out.NeedsReboot {
			// What an update module installed takes effect at once, and is
			// judged at once. A slot comes here after its reboot, in boot-check.
			code, err = a.judgePending(ctx, d, e, store)
		}
	}
	if job.plan != nil && !a.dryRun {
		a.remember(d, store, result{code: code, artifact: job.plan.Header().Name, err: err})
	}
	if err != nil || !out.NeedsReboot {
		return code, err
	}
	argument := ""
	if job.plan.Slotted() { // with it, the reboot would go to the other slot
		argument = e.RebootArgument()
	}
	a.reboot("try the new system", argument)
	return code, nil
}

// job is what came of reading the stick.
type job struct {
	plan    *install.Plan    // nil if nothing is to be installed
	held    holds            // until the update is armed
	writing bool             // the slot is not what it was
	written *install.Written // nil if it was not completed
}

// fromStick does all that needs the stick: it chooses an artifact and writes
// it. ctx ends when the stick is pulled out.
func (a *agent) fromStick(ctx context.Context, self profile, e *install.Engine, stick *mount.Stick, job *job) (report.Code, error) {
	candidates, err := a.candidates(ctx, self, stick)
	if err != nil {
		return codeOf(err, report.StickFailed), err
	}
	decision := decide(self, candidates)
	a.explain(decision, candidates)
	if decision.Chosen < 0 {
		return refusal(decision, candidates)
	}
	if err := self.device.CheckManaged(); err != nil {
		return codeOf(err, report.Failed), err
	}
	chosen := candidates[decision.Chosen]
	art, file, err := reopen(ctx, self, stick, chosen)
	if err != nil {
		return codeOf(err, report.StickFailed), err
	}
	defer file.Close() // read only
	if job.plan, err = e.Plan(ctx, art); err != nil {
		return codeOf(err, report.Refused), err
	}
	if a.dryRun {
		a.log.Info().Str("artifact", chosen.header.Name).Msg("dry run: this artifact would be installed")
		return report.OK, nil
	}
	if job.held, err = a.passGates(ctx, self.device); err != nil {
		return codeOf(err, report.Failed), err
	}
	// A gate may have taken minutes. What is read from here on must be from the
	// stick that was looked at.
	if err := stick.Check(); err != nil {
		return codeOf(err, report.StickFailed), err
	}
	job.writing = true
	job.written, err = a.write(ctx, e, job.plan)
	switch {
	case err == nil:
		return report.OK, nil
	case job.plan.Slotted():
		return codeOf(err, report.SlotFailed), err
	}
	return codeOf(err, report.ModuleFailed), err
}

// letGo releases what an install held. A lock that is not released ends with
// the process.
func (a *agent) letGo(h holds) {
	if err := h.release(); err != nil {
		a.log.Warn().Err(err).Msg("a lock could not be released")
	}
}

// notReady ends a run on a device that cannot take an update now. A trial that
// had to be undone on the way needs its reboot.
func (a *agent) notReady(d *device.Device, store *state.Store, err error) (report.Code, error) {
	if !errors.Is(err, install.ErrRolledBack) {
		return codeOf(err, report.BootEnvFailed), err
	}
	a.remember(d, store, result{code: report.TrialFailed, err: err})
	a.reboot("return to the previous system", "")
	return report.TrialFailed, err
}

// write writes the slot, or has the update module get its payload.
func (a *agent) write(ctx context.Context, e *install.Engine, plan *install.Plan) (*install.Written, error) {
	h := plan.Header()
	chosen := a.event(report.KindChosen)
	chosen.Artifact, chosen.Total = h.Name, plan.File.Size
	if plan.Slotted() {
		chosen.Slot = where(plan)
	} else {
		chosen.Module = orNone(h.PayloadType)
	}
	a.say(chosen)
	e.Report = a.progress()
	return e.Write(ctx, plan)
}

// where names the slot that an update is written to.
func where(plan *install.Plan) string {
	if plan.Slotted() {
		return plan.Target.String()
	}
	return "none"
}

// arm arms the boot loader for what was written, or has the update module
// install it.
func (a *agent) arm(ctx context.Context, d *device.Device, e *install.Engine, job job) (report.Code, install.Outcome, error) {
	h, otherwise := job.plan.Header(), report.ModuleFailed
	if job.plan.Slotted() {
		otherwise = report.BootEnvFailed
		if err := d.StartBlackBox(fmt.Sprintf("%x", h.ManifestDigest)); err != nil {
			a.log.Warn().Err(err).Msg("a failed trial may not be able to say why")
		}
	}
	out, err := e.Arm(ctx, job.written)
	switch {
	case errors.Is(err, install.ErrCommittedWithErrors):
		return report.CommittedWithErrors, out, err
	case err != nil:
		return codeOf(err, otherwise), out, err
	case out.Committed:
		a.log.Info().Str("artifact", h.Name).Msg("installed and committed")
	case out.NeedsReboot:
		a.log.Info().Str("artifact", h.Name).Str("slot", where(job.plan)).Msg("installed; the next boot tries it")
	default:
		a.log.Info().Str("artifact", h.Name).Msg("installed; to be judged now")
	}
	return report.OK, out, nil
}

// lockPause is the time between two tries to get the lock.
const lockPause = 200 * time.Millisecond

// openStore locks the store. It waits for another program as long as
// a.lockWait says: a trial must be judged, whoever else is looking at the
// device.
func (a *agent) openStore(ctx context.Context, d *device.Device) (*state.Store, error) {
	deadline := time.Now().Add(a.lockWait)
	for {
		store, err := d.OpenStore()
		if !errors.Is(err, state.ErrLocked) || !time.Now().Before(deadline) {
			return store, err
		}
		if err := a.sleep(ctx, lockPause); err != nil {
			return nil, err
		}
	}
}

// withEngine runs do under the device's lock, and tells how it ended.
func (a *agent) withEngine(ctx context.Context, d *device.Device, do func(*install.Engine, *state.Store) (report.Code, error)) (code report.Code, err error) {
	store, err := a.openStore(ctx, d)
	if err != nil {
		return codeOf(err, report.StateFailed), err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	a.speak(d)
	code, err = a.operate(d, store, do)
	return a.conclude(ctx, d, code, err), err
}

// operate runs do with the device's engine.
func (a *agent) operate(d *device.Device, store *state.Store, do func(*install.Engine, *state.Store) (report.Code, error)) (report.Code, error) {
	e := d.Engine(store)
	for _, err := range []error{e.NoSlots, e.NoLoader} { // the agent is for devices that have a way back
		if err != nil {
			return report.ConfigFailed, err
		}
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
	if err := os.MkdirAll(d.RunDir(), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.WriteFile(d.RunDir()+"/"+rebootFile, []byte(argument), 0o600)
}
