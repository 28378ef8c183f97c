package install

import (
	"context"
	"errors"
	"fmt"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// Action is what the state that a run finds calls for.
type Action uint8

// The actions.
const (
	// ActionNone: nothing is pending.
	ActionNone Action = iota
	// ActionReboot: the new slot is armed in this very boot, or an update module
	// has asked for a reboot in it; reboot to try it, with the boot loader's
	// reboot argument if it has one.
	ActionReboot
	// ActionDecide: the new slot runs on trial, or an update module has installed
	// its payload; commit it or roll it back.
	ActionDecide
	// ActionFinish: the new slot was confirmed, or the update module has
	// committed; finish the commit.
	ActionFinish
	// ActionFail: the old slot runs, and the update's trial has failed or it never
	// came to one; or an update by a module was cut short. Close it as failed.
	ActionFail
	// ActionRollback: the new slot runs on trial, but its installation or its
	// rollback was interrupted; roll it back.
	ActionRollback
	// ActionResume: the update was stopped on request before its installation;
	// resume it or roll it back.
	ActionResume
	// ActionRefuse: boot environment and running slot contradict each other in
	// a way that no interruption explains; a person must look.
	ActionRefuse
)

var actionNames = [...]string{"none", "reboot", "decide", "finish", "fail", "rollback", "resume", "refuse"}

// String returns the action's name.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// situation is all that a decision rests on.
type situation struct {
	pending *state.Pending
	phase   bootenv.Phase
	booted  bootenv.Slot
	bootID  string
	// nameRuns: the running root file system has the name of the pending
	// artifact. It tells old from new where the pending state, written by
	// another client, does not name its slots.
	nameRuns bool
	// volatile: what was armed holds for the next reboot only, and the phase
	// says Steady until then (see bootenv.Caps).
	volatile bool
}

// decide picks the way on from what a run finds. It is pure: the power may
// have failed anywhere, and this is the one place that says what follows.
func decide(s situation) Action {
	if s.pending == nil {
		return decideWithoutRecord(s.phase)
	}
	if !s.pending.Slotted() {
		return s.decideModule()
	}
	onTarget := s.onTarget()
	switch s.phase {
	case bootenv.Inconsistent:
		// A rollback of ours that waits for its reboot looks like this, too,
		// but has no record any more. With one, the rollback was cut short.
		if onTarget && undoing(s.pending.InState) {
			return ActionRollback
		}
		return ActionRefuse
	case bootenv.Armed:
		switch {
		case onTarget:
			return ActionRefuse // armed for a slot that is not the update's
		case waiting(s.pending) && s.sameBoot():
			return ActionReboot
		default:
			return ActionFail
		}
	case bootenv.Trial:
		switch {
		case !onTarget:
			return ActionRefuse
		case waiting(s.pending), committing(s.pending.InState):
			return ActionDecide
		default:
			return ActionRollback
		}
	default: // Steady
		if onTarget { // permanent already: the record must say what is true
			return ActionFinish
		}
		if s.volatile && waiting(s.pending) && s.knownSameBoot() {
			return ActionReboot // armed by the argument of the reboot to come
		}
		if stopped(s.pending) {
			return ActionResume
		}
		return ActionFail
	}
}

// decideModule handles an update by an update module, which has nothing but its
// record to go by: the boot environment has no part in it.
func (s situation) decideModule() Action {
	p := s.pending
	switch {
	case stopped(p):
		return ActionResume
	case waiting(p):
		if p.NeedsReboot && p.BootID != "" && p.BootID == s.bootID {
			return ActionReboot
		}
		return ActionDecide
	case p.InState == state.BeforeArtifactCommitLeave, p.InState == state.ArtifactCommitLeave,
		p.InState == state.Cleanup && !p.Failed:
		return ActionFinish
	default:
		// ArtifactInstall or ArtifactCommit may have done a part of its work, or
		// the end of a failed update was cut short.
		return ActionFail
	}
}

// stopped tells whether the update was stopped before its installation, by a
// person, or in another client's record perhaps by a power cut. Its payload is
// whole: that client, too, writes the record behind the check of the payload.
func stopped(p *state.Pending) bool {
	return p.Version == 2 && p.InState == state.BeforeArtifactInstallEnter
}

// decideWithoutRecord handles an environment that nobody's record explains: a
// trial whose record was lost is still a trial.
func decideWithoutRecord(p bootenv.Phase) Action {
	switch p {
	case bootenv.Trial:
		return ActionDecide
	case bootenv.Inconsistent:
		return ActionRefuse
	default: // Steady; Armed is disarmed by the next install, before it writes
		return ActionNone
	}
}

// onTarget tells whether the slot that runs is the one that was updated.
func (s situation) onTarget() bool {
	switch s.pending.TargetSlot {
	case bootenv.A.String():
		return s.booted == bootenv.A
	case bootenv.B.String():
		return s.booted == bootenv.B
	}
	// Another client's record does not name the slot. A trial or an armed
	// environment does.
	switch s.phase {
	case bootenv.Trial:
		return true
	case bootenv.Armed, bootenv.Inconsistent:
		return false
	default:
		return s.nameRuns
	}
}

// sameBoot tells whether the update was armed in the boot that runs now. Where
// that is unknown it is assumed, because a reboot then settles it.
func (s situation) sameBoot() bool {
	return s.pending.BootID == "" || s.bootID == "" || s.pending.BootID == s.bootID
}

// knownSameBoot tells the same for a volatile boot loader, where only the boot
// identifier tells an update that waits for its reboot from one that failed:
// if it is unknown, nothing may be assumed. [Engine.Plan] sees to it that it is
// known.
func (s situation) knownSameBoot() bool {
	return s.bootID != "" && s.pending.BootID == s.bootID
}

func waiting(p *state.Pending) bool {
	return p.Version == 1 || p.InState == state.BeforeArtifactCommitEnter
}

// installed tells whether the installation came to its end, and the rollback did
// not begin.
func installed(p *state.Pending) bool { return waiting(p) || committing(p.InState) }

// tried tells whether the new slot had its trial, as far as the record knows: the
// rollback that follows a trial counts it as failed first. Without a trial nothing
// has failed: the update was stopped or cut short.
func tried(r state.Record) bool {
	p := r.Pending
	_, failed := r.Failed[p.ManifestDigest]
	return p.Slotted() && (installed(p) || failed && undoing(p.InState))
}

func committing(inState string) bool {
	switch inState {
	case state.ArtifactCommitEnter, state.BeforeArtifactCommitLeave, state.ArtifactCommitLeave:
		return true
	}
	return false
}

func undoing(inState string) bool {
	switch inState {
	case state.ArtifactRollbackEnter, state.ArtifactFailureEnter, state.Cleanup:
		return true
	}
	return false
}

// status is what every operation looks at first.
type status struct {
	record state.Record
	env    bootenv.State
	action Action
}

func (e *Engine) inspect(ctx context.Context) (status, error) {
	r, err := e.Store.Load()
	if err != nil {
		return status{}, err
	}
	slotted := r.Pending != nil && r.Pending.Slotted()
	if e.NoSlots != nil && slotted {
		return status{}, fmt.Errorf("an update of a root slot is pending: %w", e.NoSlots)
	}
	if e.NoSlots != nil || r.Pending != nil && !slotted {
		return status{record: r, action: decide(situation{pending: r.Pending, bootID: e.BootID})}, nil
	}
	env, err := e.state(ctx)
	if err != nil && r.Pending == nil {
		err = unknownError{err}
	}
	if err != nil {
		return status{}, err
	}
	s := situation{pending: r.Pending, phase: env.Phase, booted: e.Slots.Booted, bootID: e.BootID, volatile: e.Loader.Caps().Volatile}
	// A name that the update does not change proves nothing.
	s.nameRuns = r.Pending != nil && e.RunningName != "" && e.RunningName == r.Pending.ArtifactName && r.ArtifactName != e.RunningName
	return status{record: r, env: env, action: decide(s)}, nil
}

// state asks the boot loader.
func (e *Engine) state(ctx context.Context) (bootenv.State, error) {
	if e.NoLoader != nil {
		return bootenv.State{}, e.NoLoader
	}
	env, err := e.Loader.State(ctx)
	if err != nil {
		return bootenv.State{}, bootEnvError{err}
	}
	return env, nil
}

// unknownError is why it cannot be known whether a trial is open that no record
// speaks of. It is an [ErrUnknown].
type unknownError struct{ error }

func (e unknownError) Unwrap() error      { return e.error }
func (unknownError) Is(target error) bool { return target == ErrUnknown }

// MarkBooted reports to the boot loader that the running slot has started,
// where the boot loader wants to know. It is called once after every start,
// before anything else is asked.
func (e *Engine) MarkBooted(ctx context.Context) error {
	m, ok := e.Loader.(bootenv.BootMarker)
	if !ok {
		return nil
	}
	if err := m.MarkBooted(ctx); err != nil {
		return fmt.Errorf("report the start of slot %s: %w", e.Slots.Booted, err)
	}
	return nil
}

// Inspect tells what the device's state calls for. It changes nothing.
func (e *Engine) Inspect(ctx context.Context) (Action, state.Record, error) {
	st, err := e.inspect(ctx)
	return st.action, st.record, err
}

// Recover closes what an interruption left open, as far as that needs no
// decision: it closes failed updates, finishes confirmed ones, and undoes
// trials of unfinished installations. It returns the action that it found
// and, for [ActionFail] and [ActionRollback], why in the error's chain
// ([ErrTrialFailed] or [ErrInterrupted]; [ErrRolledBack]).
//
// [ActionNone], [ActionReboot], [ActionDecide] and [ActionResume] are left as
// they are. After [ActionRollback] the device must reboot.
func (e *Engine) Recover(ctx context.Context) (Action, error) {
	st, err := e.inspect(ctx)
	if err != nil {
		return ActionNone, err
	}
	switch st.action {
	case ActionFinish:
		e.report(Event{Step: StepRecover, Artifact: st.record.Pending.ArtifactName, Detail: "finish the commit"})
		return st.action, e.finishCommit(ctx, st.record)
	case ActionFail:
		return st.action, e.closeFailed(ctx, st)
	case ActionRollback:
		return st.action, undone(e.unwind(ctx, st.record))
	case ActionRefuse:
		return st.action, ErrInconsistent
	default:
		return st.action, nil
	}
}

// CloseLost counts an update as failed whose trial another program has ended:
// its record is gone, the slot that it replaced runs, and the black box knows
// that its trial began. Otherwise it would only count as started, and a stick
// that stays in would install it again. It returns why it failed, "" if nothing
// was lost.
//
// One write of the record; a cut leaves the black box, which leads back here.
func (e *Engine) CloseLost(ctx context.Context) (reason string, err error) {
	st, err := e.inspect(ctx)
	r := st.record
	if err != nil || st.action != ActionNone || e.NoSlots != nil || e.BlackBox == nil {
		return "", err
	}
	a := r.Attempt
	if a == nil || r.Known[a.ManifestDigest].Starts == 0 || a.TargetSlot == "" || a.TargetSlot == e.Slots.Booted.String() || !e.BlackBox.Began(a.ManifestDigest) {
		return "", nil
	}
	if _, told := r.Failed[a.ManifestDigest]; told { // the black box of our own verdict, after a cut
		return "", e.BlackBox.Forget()
	}
	p := &state.Pending{ManifestDigest: a.ManifestDigest, TargetSlot: a.TargetSlot}
	reason = "another program ended its trial, and the old system runs"
	if why := e.explain(*p); why != "" {
		reason += ": " + why
	}
	e.markFailed(&r, p, reason)
	return reason, e.saveClosed(r)
}

// unwind goes on with the rollback where its record says: it begins it, repeats
// it, or does what is left behind it.
func (e *Engine) unwind(ctx context.Context, r state.Record) error {
	p := *r.Pending
	switch p.InState {
	case state.ArtifactFailureEnter, state.Cleanup:
		if p.Slotted() {
			if err := e.Loader.Revert(ctx); err != nil { // for nothing, if the record is ours
				return bootEnvError{err}
			}
			if p.ManifestDigest == "" {
				p.RolledBack = true // it is now; another client's record speaks of its scripts, too
			}
		}
		r.Pending = &p
		return e.fail(ctx, r)
	default:
		return e.undo(ctx, r)
	}
}

// closeFailed is closeUpdate with the reason why: [ErrTrialFailed], or
// [ErrInterrupted] with [ErrRolledBack] or [ErrNotRolledBack]. Where a rollback
// is stopped on request, nothing is closed yet, and [ErrStopped] says all.
func (e *Engine) closeFailed(ctx context.Context, st status) error {
	r := st.record
	why := e.explain(*r.Pending) // closing it empties the black box
	err := e.closeUpdate(ctx, st)
	if errors.Is(err, ErrStopped) && !installed(r.Pending) {
		return err
	}
	cause := ErrTrialFailed
	if !tried(r) {
		cause, err = ErrInterrupted, undone(err)
	}
	if why != "" {
		cause = fmt.Errorf("%w: %s", cause, why)
	}
	return errors.Join(cause, err)
}

// closeUpdate ends an update that did not make it. Where the boot loader has
// ended the trial of a slot there is nothing to roll back: an environment that
// is still armed is disarmed first, so that a cut here leaves a record that
// leads back to this function, and ArtifactFailure follows. What was cut short
// in any other state is rolled back, whatever runs: its scripts have begun
// something.
func (e *Engine) closeUpdate(ctx context.Context, st status) error {
	r, p := st.record, *st.record.Pending
	e.report(Event{Step: StepRecover, Artifact: p.ArtifactName, Detail: "close the failed update"})
	if installed(&p) {
		reason := "it was interrupted in its commit"
		if p.Slotted() {
			reason = "the new system did not come up or was not committed, and the boot loader went back"
		}
		if why := e.explain(p); why != "" {
			reason += ": " + why
		}
		e.markFailed(&r, &p, reason)
	}
	if !p.Slotted() || !waiting(&p) {
		return e.unwind(ctx, r)
	}
	if err := e.Loader.Revert(ctx); err != nil {
		return bootEnvError{err}
	}
	p.RolledBack = true // the old slot runs
	r.Pending = &p
	return e.fail(ctx, r)
}
