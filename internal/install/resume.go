package install

import (
	"context"
	"errors"
	"slices"

	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// StopStates returns the states before which a run can be stopped (source:
// Mender client 5, --stop-before).
func StopStates() []string {
	return []string{
		state.ArtifactInstallEnter, state.ArtifactCommitEnter, state.ArtifactCommitLeave,
		state.ArtifactRollbackEnter, state.ArtifactFailureEnter, state.Cleanup,
	}
}

func (e *Engine) stopsBefore(s string) bool { return slices.Contains(e.StopBefore, s) }

// Resume goes on with the pending update where it was stopped or interrupted:
//
//	before ArtifactInstall_Enter           installs, as Arm does
//	installed, waiting for commit          commits
//	before or in ArtifactCommit_Leave      finishes the commit
//	in ArtifactInstall or ArtifactCommit   rolls back; in the commit of a slot whose trial runs, commits
//	in the rollback or behind it           repeats it from there
//
// (source: Mender client 5, standalone mode). The errors are those of
// [Engine.Arm], [Engine.Commit] and [Engine.Recover].
func (e *Engine) Resume(ctx context.Context) (Outcome, error) {
	st, err := e.inspect(ctx)
	if err != nil {
		return Outcome{}, err
	}
	switch st.action {
	case ActionNone:
		return Outcome{}, ErrNothingPending
	case ActionRefuse:
		return Outcome{}, refused(st.record)
	case ActionResume:
		return e.resumeInstall(ctx, st.record)
	case ActionFail:
		return Outcome{}, e.closeFailed(ctx, st)
	case ActionRollback:
		return Outcome{}, undone(e.unwind(ctx, st.record))
	default:
		err := e.Commit(ctx)
		return Outcome{Begun: true, Committed: err == nil || errors.Is(err, ErrCommittedWithErrors)}, err
	}
}

// resumeInstall installs what was written in an earlier run. That it was whole
// then is why the record exists; a slot that somebody has mounted since may
// have changed.
func (e *Engine) resumeInstall(ctx context.Context, r state.Record) (Outcome, error) {
	if e.stopsBefore(state.ArtifactInstallEnter) {
		return Outcome{}, ErrStopped
	}
	p := *r.Pending
	pl := e.payloadOf(&p)
	if i, ok := pl.(image); ok {
		p.OriginalSlot, p.TargetSlot = i.target.Other().String(), i.target.String() // another client names none
		if err := e.checkTarget(e.Slots.Partition(i.target)); err != nil {
			return Outcome{}, err
		}
		if err := e.Loader.CheckArm(ctx, i.target); err != nil {
			return Outcome{}, bootEnvError{err}
		}
	}
	canRollBack, err := pl.ask(ctx, module.SupportsRollback)
	if err != nil {
		return Outcome{}, err
	}
	p.InState, p.BootID = state.ArtifactInstallEnter, e.BootID // the trial is of the next boot
	r.Pending = &p
	if err := e.Store.Save(r); err != nil {
		return Outcome{}, err
	}
	return e.enable(ctx, pl, r, canRollBack)
}
