package install

import (
	"context"
	"errors"
	"fmt"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// unknownName stands for a root file system that does not say its name
// (source: Mender client, "artifact-name").
const unknownName = "unknown"

// inconsistentSuffix marks the name of a system on which an update script
// failed where there was no way back (source: Mender documentation, "state
// scripts").
const inconsistentSuffix = "_INCONSISTENT"

// Commit makes the running trial permanent.
//
// It refuses, changing nothing, before the new slot runs ([ErrNotRebooted])
// and when nothing is pending ([ErrNothingPending]). When the boot loader has
// gone back it closes the update and returns [ErrTrialFailed]. A failing
// ArtifactCommit_Enter script undoes the update ([ErrRolledBack]); the device
// must reboot then. A failing ArtifactCommit_Leave script comes too late for
// that ([ErrCommittedWithErrors]).
func (e *Engine) Commit(ctx context.Context) error {
	st, err := e.inspect(ctx)
	if err != nil {
		return err
	}
	switch st.action {
	case ActionNone:
		return ErrNothingPending
	case ActionReboot:
		return ErrNotRebooted
	case ActionFinish:
		return e.finishCommit(ctx, st.record)
	case ActionFail:
		return errors.Join(ErrTrialFailed, e.closeFailed(ctx, st))
	case ActionRollback:
		return ErrUnfinished
	case ActionRefuse:
		return refused(st.record)
	default:
		return e.commitTrial(ctx, st.record)
	}
}

// commitTrial is writes 8 to 10.
func (e *Engine) commitTrial(ctx context.Context, r state.Record) error {
	if r.Pending == nil { // the record was lost, the trial was not
		r.Pending = e.lostPending()
	}
	e.report(Event{Step: StepCommit, Artifact: r.Pending.ArtifactName, Slot: e.Slots.Booted})
	// Write 8. An older client must not commit what runs scripts already.
	committing := *r.Pending
	committing.Version, committing.InState = 2, state.ArtifactCommitEnter
	r.Pending = &committing
	if err := e.Store.Save(r); err != nil {
		return err
	}
	if err := e.Scripts.Run(ctx, "ArtifactCommit", "Enter"); err != nil {
		if ctx.Err() != nil { // told to stop: that is no verdict, and the trial stays open
			return err
		}
		r = e.failed(r, err.Error())
		return errors.Join(err, e.runError(ctx, "ArtifactCommit"), ErrRolledBack, e.undo(ctx, r))
	}
	// Write 9. One transaction; the trial is over.
	if err := e.Loader.Confirm(ctx); err != nil {
		return fmt.Errorf("commit slot %s: %w", e.Slots.Booted, err)
	}
	return e.finishCommit(ctx, r)
}

// finishCommit follows write 9, whoever made it: the slot is permanent, and
// what is left is to say so.
func (e *Engine) finishCommit(ctx context.Context, r state.Record) error {
	// The slot is permanent: a signal does not change that any more.
	ctx = context.WithoutCancel(ctx)
	leaveErr := e.Scripts.Run(ctx, "ArtifactCommit", "Leave")
	if leaveErr != nil {
		leaveErr = errors.Join(ErrCommittedWithErrors, leaveErr, e.runError(ctx, "ArtifactCommit"))
	}
	p := *r.Pending
	if leaveErr != nil {
		p.ArtifactName += inconsistentSuffix
	}
	// Write 10. Name, provides and the end of the pending state in one file.
	r = r.CommitProvides(p)
	r.Installed = p.ManifestDigest
	delete(r.Failed, p.ManifestDigest)
	r.Pending, r.Attempt = nil, nil
	if err := e.Store.Save(r); err != nil {
		return errors.Join(leaveErr, err)
	}
	return leaveErr
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

// Rollback gives the pending update up: the old slot boots next. Called on the
// trial itself it is for the next boot, so the device must reboot; it returns
// whether that is so.
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
	case ActionFail: // the boot loader was faster
		return false, e.closeFailed(ctx, st)
	case ActionReboot: // never ran: it may be tried again
	default:
		if r.Pending == nil {
			r.Pending = e.lostPending()
		}
		r = e.failed(r, reason)
	}
	return st.action != ActionReboot, e.undo(ctx, r)
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

// undo runs the rollback: the environment leads back to the old slot, whatever
// the scripts say, and then nothing is pending any more.
//
//	store: version 2, rolling back     a cut here: trial, armed or old slot; recovery comes back here
//	boot env: revert                   old slot at the next boot; recovery comes back here
//	store: pending removed             old slot
func (e *Engine) undo(ctx context.Context, r state.Record) error {
	ctx = context.WithoutCancel(ctx)
	p := *r.Pending
	e.report(Event{Step: StepRollback, Artifact: p.ArtifactName, Slot: e.Slots.Booted})
	p.Version, p.InState = 2, state.ArtifactRollbackEnter
	r.Pending = &p
	if err := e.Store.Save(r); err != nil {
		// The environment matters more than the record of it.
		return errors.Join(err, e.Loader.Revert(ctx))
	}
	scriptErr := e.Scripts.Run(ctx, "ArtifactRollback", "Enter")
	if err := e.Loader.Revert(ctx); err != nil {
		return errors.Join(scriptErr, fmt.Errorf("roll back: %w", err))
	}
	scriptErr = errors.Join(scriptErr, e.Scripts.Run(ctx, "ArtifactRollback", "Leave"))
	_ = e.runAll(ctx, "ArtifactFailure") // logged by the runner; there is nothing left to undo
	r.Pending = nil
	if scriptErr != nil {
		r.ArtifactName = p.ArtifactName + inconsistentSuffix
	}
	return errors.Join(scriptErr, e.Store.Save(r))
}
