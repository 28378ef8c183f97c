package install

import (
	"context"
	"errors"
	"fmt"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// unknownName stands for a root file system that does not say its name
// (source: Mender client, "artifact-name").
const unknownName = "unknown"

// Commit makes the pending update permanent: the running trial, or what an
// update module has installed.
//
// It refuses, changing nothing, before the new slot runs ([ErrNotRebooted]),
// before the update is installed ([ErrNotInstalled]), when its installation or
// its rollback was cut short ([ErrUnfinished]), where the boot environment cannot
// be changed, and when nothing is pending ([ErrNothingPending]). When the boot
// loader has gone back it closes the update and returns [ErrTrialFailed]. A
// failing ArtifactCommit_Enter script undoes the update ([ErrRolledBack]), as
// does a failing module ([ErrNotRolledBack] if it cannot); of a slot, the device
// must reboot then. A failing ArtifactCommit_Leave script comes too late for that
// ([ErrCommittedWithErrors]).
func (e *Engine) Commit(ctx context.Context) error {
	st, err := e.inspect(ctx)
	if err != nil {
		return err
	}
	r := st.record
	switch st.action {
	case ActionNone:
		return ErrNothingPending
	case ActionReboot:
		if r.Pending.Slotted() {
			return ErrNotRebooted
		}
		// The module is to be committed after a reboot. There is no protection
		// to be lost, so that who asks for it before gets it, as with Mender.
		return e.commitPending(ctx, r)
	case ActionResume:
		return ErrNotInstalled
	case ActionFinish:
		return e.finishCommit(ctx, r)
	case ActionFail:
		if !installed(r.Pending) {
			return ErrUnfinished
		}
		return e.closeFailed(ctx, st)
	case ActionRollback:
		return ErrUnfinished
	case ActionRefuse:
		return refused(r)
	default:
		if r.Pending == nil { // the record was lost, the trial was not
			r.Pending = e.lostPending()
		}
		return e.commitPending(ctx, r)
	}
}

// commitPending is writes 8 to 10.
func (e *Engine) commitPending(ctx context.Context, r state.Record) error {
	if e.stopsBefore(state.ArtifactCommitEnter) {
		return ErrStopped
	}
	waiting, committing := *r.Pending, *r.Pending
	pl, slotted := e.payloadOf(&committing), committing.Slotted()
	if slotted { // or a script would prepare for what does not come
		if err := e.Loader.CheckConfirm(ctx); err != nil {
			return fmt.Errorf("commit slot %s: %w", e.Slots.Booted, bootEnvError{err})
		}
	}
	e.report(Event{Step: StepCommit, Artifact: committing.ArtifactName, Slot: e.Slots.Booted, Module: moduleName(&committing)})
	// Write 8. An older client must not commit what runs scripts already.
	committing.Version, committing.InState = 2, state.ArtifactCommitEnter
	r.Pending = &committing
	if err := e.Store.Save(r); err != nil {
		return err
	}
	err := e.Scripts.Run(ctx, "ArtifactCommit", "Enter")
	if err != nil && ctx.Err() != nil { // told to stop: that is no verdict, and the update stays pending
		if !slotted {
			r.Pending = &waiting // or the next run would roll it back
			err = errors.Join(err, e.Store.Save(r))
		}
		return err
	}
	if err == nil {
		if err = pl.do(ctx, module.ArtifactCommit); err != nil && slotted {
			return err // the trial stays open
		}
	}
	if err != nil {
		r = e.failed(r, err.Error())
		return errors.Join(err, e.runError(ctx, "ArtifactCommit"), undone(e.undo(ctx, r)))
	}
	stop := e.stopsBefore(state.ArtifactCommitLeave)
	if !slotted || stop { // the boot environment tells it of a slot
		committed := committing
		committed.InState = state.BeforeArtifactCommitLeave
		r.Pending = &committed
		if err := e.Store.Save(r); err != nil {
			return err
		}
	}
	if stop {
		return ErrStopped
	}
	return e.finishCommit(ctx, r)
}

// undone says what an update that failed has come to. One that is stopped on its
// way back has come to nothing yet.
func undone(err error) error {
	if errors.Is(err, ErrNotRolledBack) || errors.Is(err, ErrStopped) {
		return err
	}
	return errors.Join(ErrRolledBack, err)
}

// finishCommit follows write 9, whoever made it: the update is permanent, and
// what is left is to say so.
func (e *Engine) finishCommit(ctx context.Context, r state.Record) error {
	// The update is permanent: a signal does not change that any more.
	ctx = context.WithoutCancel(ctx)
	p := *r.Pending
	var lateErr error
	if p.InState != state.Cleanup {
		if err := e.Scripts.Run(ctx, "ArtifactCommit", "Leave"); err != nil {
			lateErr = errors.Join(ErrCommittedWithErrors, err, e.runError(ctx, "ArtifactCommit"))
			p.ArtifactName += state.InconsistentSuffix
		}
	}
	if e.stopsBefore(state.Cleanup) {
		p.Version, p.InState = 2, state.Cleanup
		r.Pending = &p
		return errors.Join(lateErr, e.Store.Save(r), ErrStopped)
	}
	if err := e.payloadOf(&p).cleanup(ctx); err != nil { // the software is installed all the same
		lateErr = errors.Join(lateErr, ErrCommittedWithErrors, err)
	}
	// Write 10. Name, provides and the end of the pending state in one file.
	return errors.Join(lateErr, e.saveClosed(r.Commit(p)))
}

// moduleName is the payload type of an update by an update module, else "".
func moduleName(p *state.Pending) string {
	if p.Slotted() {
		return ""
	}
	return p.PayloadTypes[0]
}

// lostPending describes a trial of which only the boot environment knows.
func (e *Engine) lostPending() *state.Pending {
	name := e.RunningName
	if name == "" {
		name = unknownName
	}
	return &state.Pending{
		ArtifactName: name,
		PayloadTypes: []string{artifact.RootfsImage},
		OriginalSlot: e.Slots.Inactive().String(),
		TargetSlot:   e.Slots.Booted.String(),
	}
}

// Rollback gives the pending update up. Of a slot, the old one boots next;
// called on the trial itself that is for the next boot, so the device must
// reboot; it returns whether that is so. An update module undoes what it
// installed; one that cannot is not asked to ([ErrNoRollback]).
//
// reason is kept with the artifact, which is not tried again unattended.
// [ErrNothingPending] means that there is nothing to roll back.
func (e *Engine) Rollback(ctx context.Context, reason string) (reboot bool, err error) {
	st, err := e.inspect(ctx)
	if err != nil {
		return false, err
	}
	r := st.record
	switch st.action {
	case ActionNone:
		return false, ErrNothingPending
	case ActionRefuse:
		return false, refused(r)
	case ActionFinish:
		return false, errors.New("the update was committed already: run commit to finish it")
	case ActionFail: // the boot loader was faster, or a power cut
		return false, e.closeUpdate(ctx, st)
	case ActionResume: // nothing took effect
		return false, e.undo(ctx, r)
	default:
	}
	if r.Pending != nil && !r.Pending.Slotted() {
		return e.rollbackModule(ctx, r, reason)
	}
	if st.action == ActionReboot { // never ran: it may be tried again
		return false, e.undo(ctx, r)
	}
	if r.Pending == nil {
		r.Pending = e.lostPending()
	}
	return true, e.undo(ctx, e.failed(r, reason))
}

func (e *Engine) rollbackModule(ctx context.Context, r state.Record, reason string) (reboot bool, err error) {
	can, err := e.payloadOf(r.Pending).ask(ctx, module.SupportsRollback)
	if err != nil {
		return false, err
	}
	if !can {
		return false, ErrNoRollback
	}
	return r.Pending.NeedsReboot, e.undo(ctx, e.failed(r, reason))
}

// refused: with nothing pending, an environment that names the other slot is a
// rollback that waits for its reboot, and there is nothing to do.
func refused(r state.Record) error {
	if r.Pending == nil {
		return ErrNothingPending
	}
	return ErrInconsistent
}

func (e *Engine) failed(r state.Record, reason string) state.Record {
	e.markFailed(&r, r.Pending, reason)
	return r
}

// undo runs the rollback, whatever the scripts say, and then nothing is pending
// any more. Of a slot the environment leads back to the old one.
//
//	store: version 2, rolling back     a cut here: trial, armed or old slot; recovery comes back here
//	boot env: revert                   old slot at the next boot; recovery comes back here
//	store: pending removed             old slot
//
// Of an update module:
//
//	store: version 2, rolling back     recovery comes back here
//	module: ArtifactRollback           recovery calls it again
//	store: version 2, failed           recovery goes on here
//	module: ArtifactFailure, Cleanup   recovery calls the first again, the second if the work tree is there
//	store: pending removed             old software; or inconsistent, if it cannot be undone
func (e *Engine) undo(ctx context.Context, r state.Record) error {
	ctx = context.WithoutCancel(ctx)
	p := *r.Pending
	e.report(Event{Step: StepRollback, Artifact: p.ArtifactName, Slot: e.Slots.Booted, Module: moduleName(&p)})
	pl := e.payloadOf(&p)
	can, err := pl.ask(ctx, module.SupportsRollback)
	if !can {
		// What was not installed needs no way back.
		p.RolledBack = p.InState == state.BeforeArtifactInstallEnter
		r.Pending = &p
		return errors.Join(err, e.fail(ctx, r))
	}
	p.Version, p.InState, p.Failed = 2, state.ArtifactRollbackEnter, true
	r.Pending = &p
	if err := e.Store.Save(r); err != nil {
		// What is in effect matters more than the record of it.
		return errors.Join(err, pl.do(ctx, module.ArtifactRollback))
	}
	if e.stopsBefore(state.ArtifactRollbackEnter) {
		return ErrStopped
	}
	rollbackErr := e.Scripts.Run(ctx, "ArtifactRollback", "Enter")
	if err := pl.do(ctx, module.ArtifactRollback); err != nil {
		rollbackErr = errors.Join(rollbackErr, err)
		if p.Slotted() {
			return rollbackErr // the record leads back here
		}
	}
	rollbackErr = errors.Join(rollbackErr, e.Scripts.Run(ctx, "ArtifactRollback", "Leave"))
	done := p
	done.RolledBack = rollbackErr == nil
	r.Pending = &done
	return errors.Join(rollbackErr, e.fail(ctx, r))
}

// fail is the end of an update that did not make it, rolled back or not:
// ArtifactFailure, Cleanup, and the record.
func (e *Engine) fail(ctx context.Context, r state.Record) error {
	ctx = context.WithoutCancel(ctx)
	p := *r.Pending
	pl, slotted := e.payloadOf(&p), p.Slotted()
	p.Version, p.Failed = 2, true
	var err error
	if p.InState != state.Cleanup {
		p.InState = state.ArtifactFailureEnter
		failing, stop := p, e.stopsBefore(state.ArtifactFailureEnter)
		r.Pending = &failing
		if !slotted || stop { // whether it was rolled back is nowhere else
			if err := e.Store.Save(r); err != nil {
				return err
			}
		}
		if stop {
			return ErrStopped
		}
		// What scripts return here is logged by their runner and changes nothing.
		_ = e.Scripts.Run(ctx, "ArtifactFailure", "Enter")
		err = pl.do(ctx, module.ArtifactFailure)
		_ = e.Scripts.Run(ctx, "ArtifactFailure", "Leave")
	}
	if e.stopsBefore(state.Cleanup) {
		p.InState = state.Cleanup
		r.Pending = &p
		return errors.Join(err, e.Store.Save(r), ErrStopped)
	}
	err = errors.Join(err, pl.cleanup(ctx))
	r.Pending = nil
	if !p.RolledBack {
		p.ArtifactName += state.InconsistentSuffix
		if slotted { // the old system runs: what it provides is as it was
			r.ArtifactName = p.ArtifactName
		} else {
			r = r.CommitProvides(p)
			err = errors.Join(ErrNotRolledBack, err)
		}
	}
	return errors.Join(err, e.saveClosed(r))
}
