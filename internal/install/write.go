package install

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// Written is a payload that is whole, verified, and without effect yet: in a
// slot, or with an update module. Only [Engine.Write] makes one.
type Written struct {
	plan  *Plan
	proof *artifact.Verified
}

// Write streams the planned artifact into its slot, compares the stream with the
// signed checksum, flushes, and compares the medium with the stream; or it
// streams it to its update module. The boot loader does not know of it yet.
//
// On error the running slot is untouched and boots; the content of the other
// one is unknown, and the next Write of the same artifact rewrites only what
// differs. An update module was told to clean up.
func (e *Engine) Write(ctx context.Context, p *Plan) (*Written, error) {
	if p.Header().Empty {
		// Nothing to bring anywhere, and nothing that scripts could prepare.
		proof, err := p.art.Copy(ctx, func(f artifact.File) (io.Writer, error) {
			return nil, fmt.Errorf("file %q in an artifact without payload", f.Name)
		})
		if err != nil {
			return nil, errors.Join(err, e.countBroken(ctx, p, err))
		}
		return &Written{plan: p, proof: proof}, nil
	}
	w, err := e.write(ctx, p)
	if err != nil {
		why := err
		err = errors.Join(err, e.runError(ctx, "Download"))
		if p.begun {
			err = errors.Join(err, p.payload.cleanup(ctx))
		}
		return nil, errors.Join(err, e.countBroken(ctx, p, why))
	}
	return w, nil
}

func (e *Engine) write(ctx context.Context, p *Plan) (*Written, error) {
	if err := e.Scripts.Run(ctx, "Download", "Enter"); err != nil {
		return nil, err
	}
	proof, err := p.payload.download(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := e.Scripts.Run(ctx, "Download", "Leave"); err != nil {
		return nil, err
	}
	return &Written{plan: p, proof: proof}, nil
}

// saveAttempt is write 2.
func (e *Engine) saveAttempt(p *Plan, targetSlot string) error {
	r := p.record
	r.Attempt = &state.Attempt{ManifestDigest: hexDigest(p.Header()), TargetSlot: targetSlot, BootID: e.BootID}
	if err := e.Store.Save(r); err != nil {
		return err
	}
	p.record = r
	return nil
}

// stream is writes 3 and 4: payload, flush, read back.
func (e *Engine) stream(ctx context.Context, p *Plan) (_ *artifact.Verified, err error) {
	t, err := e.OpenTarget(e.Slots.Partition(p.Target), p.File.Size)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	h := p.Header()
	progress, dst := newProgress(e, t, p)
	proof, err := p.art.Copy(ctx, func(artifact.File) (io.Writer, error) { return dst, nil })
	if err != nil {
		return nil, err
	}
	if err := t.Sync(ctx); err != nil {
		return nil, err
	}
	progress.finish()
	if e.SkipVerify {
		return proof, nil
	}
	e.report(Event{Step: StepVerify, Artifact: h.Name, Slot: p.Target, Bytes: p.File.Size, Total: p.File.Size})
	return proof, t.Verify(ctx, h.Files[0].SHA256)
}

// Outcome says how an installation has ended.
type Outcome struct {
	// Begun: it has got as far as a record, so that an error was undone; without
	// it, nothing was installed.
	Begun bool
	// Committed: it is permanent already, because there is no way back.
	Committed bool
	// NeedsReboot: it has its full effect after a reboot only. Of a slot this
	// is always so.
	NeedsReboot bool
}

// Arm makes what was written effective. Of a slot: the boot loader tries it at
// the next boot and falls back if that boot is not committed. Of an update
// module: the module installs it, and where the module has no way back, commits
// it. An artifact without payload is committed at once. Arm does not reboot.
//
// On error the device is as before: the environment is disarmed again, the
// module has rolled back, and nothing is pending. If even that fails, the error
// says so: of a slot, the record stays and [Engine.Recover] tries again; of a
// module it is [ErrNotRolledBack], and the artifact's name is marked as
// inconsistent. [ErrStopped] is not of these: the update is pending then.
func (e *Engine) Arm(ctx context.Context, w *Written) (Outcome, error) {
	if w == nil || !w.proof.Valid() {
		return Outcome{}, errors.New("arm: the payload was not verified")
	}
	p, h := w.plan, w.plan.Header()
	if h.Empty {
		return e.commitEmpty(p)
	}
	// Asked first: of a module that does not know, nothing must be installed.
	canRollBack, err := p.payload.ask(ctx, module.SupportsRollback)
	if err != nil {
		return Outcome{}, errors.Join(err, p.payload.cleanup(ctx))
	}
	// The scripts belong to the update that becomes pending in write 5. A cut
	// in between leaves scripts that nothing runs.
	if err := e.Scripts.Install(h.FormatVersion, h.Scripts); err != nil {
		return Outcome{}, errors.Join(err, p.payload.cleanup(ctx))
	}
	pending := e.pendingFor(p)
	r := started(p.record, pending)
	r.Pending = pending
	stop := e.stopsBefore(state.ArtifactInstallEnter)
	if stop {
		r.Pending.InState = state.BeforeArtifactInstallEnter
	}
	// Write 5. From here on an interruption is an update to be closed.
	if err := e.Store.Save(r); err != nil {
		return Outcome{}, errors.Join(err, p.payload.cleanup(ctx))
	}
	if stop {
		return Outcome{Begun: true}, ErrStopped
	}
	return e.enable(ctx, p.payload, r, canRollBack)
}

// commitEmpty records an artifact that brings nothing but its name and what it
// provides: one write, old or new.
func (e *Engine) commitEmpty(p *Plan) (Outcome, error) {
	if err := e.Store.Save(p.record.Commit(*e.pendingFor(p))); err != nil {
		return Outcome{}, err
	}
	return Outcome{Begun: true, Committed: true}, nil
}

// enable is writes 6 and 7 with the scripts around them. Without a way back
// the commit follows in place of write 7.
func (e *Engine) enable(ctx context.Context, pl payload, r state.Record, canRollBack bool) (Outcome, error) {
	if err := e.activate(ctx, pl, r.Pending); err != nil {
		return Outcome{Begun: true}, errors.Join(err, e.runError(ctx, "ArtifactInstall"), e.undo(ctx, ended(ctx, r, err)))
	}
	reboot, err := pl.ask(ctx, module.NeedsArtifactReboot)
	if err != nil {
		return Outcome{Begun: true}, errors.Join(err, e.undo(ctx, ended(ctx, r, err)))
	}
	out := Outcome{Begun: true, NeedsReboot: reboot}
	waiting := *r.Pending
	waiting.Version, waiting.InState = 1, ""
	waiting.NeedsReboot = reboot && !waiting.Slotted()
	if !canRollBack && !e.stopsBefore(state.ArtifactCommitEnter) {
		r.Pending = &waiting
		err := e.commitPending(ctx, r)
		out.Committed = err == nil || errors.Is(err, ErrCommittedWithErrors)
		return out, err
	}
	// Write 7. Now any client may commit it.
	installing := r
	r.Pending = &waiting
	if err := e.Store.Save(r); err != nil {
		return Outcome{Begun: true}, errors.Join(err, e.runError(ctx, "ArtifactInstall"), e.undo(ctx, ended(ctx, installing, err)))
	}
	if !canRollBack {
		return out, ErrStopped
	}
	return out, nil
}

// activate makes the payload effective, between its scripts.
func (e *Engine) activate(ctx context.Context, pl payload, p *state.Pending) error {
	if err := e.Scripts.Run(ctx, "ArtifactInstall", "Enter"); err != nil {
		return err
	}
	ev := Event{Step: StepArm, Artifact: p.ArtifactName, Slot: e.Slots.Inactive()}
	if !p.Slotted() {
		ev = Event{Step: StepInstall, Artifact: p.ArtifactName, Module: moduleName(p)}
	}
	e.report(ev)
	if err := pl.do(ctx, module.ArtifactInstall); err != nil {
		return err
	}
	return e.Scripts.Run(ctx, "ArtifactInstall", "Leave")
}

func (e *Engine) pendingFor(p *Plan) *state.Pending {
	h := p.Header()
	target := ""
	if p.Slotted() {
		target = p.Target.String()
	}
	return &state.Pending{
		Version:        2,
		InState:        state.ArtifactInstallEnter,
		ArtifactName:   h.Name,
		ArtifactGroup:  h.Group,
		Provides:       h.Provides,
		ClearsProvides: h.ClearsProvides,
		HasClears:      h.HasClears,
		PayloadTypes:   []string{h.PayloadType},
		OriginalSlot:   e.Slots.Booted.String(),
		TargetSlot:     target,
		BootID:         e.BootID,
		ManifestDigest: hexDigest(h),
	}
}

func hexDigest(h *artifact.Header) string { return fmt.Sprintf("%x", h.ManifestDigest) }

// runError runs a state's error scripts. They run although the operation was
// canceled: cleaning up is what they are for.
func (e *Engine) runError(ctx context.Context, state string) error {
	return e.Scripts.Run(context.WithoutCancel(ctx), state, "Error")
}
