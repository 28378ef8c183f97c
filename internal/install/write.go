package install

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/script"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// Written is a slot that holds a whole, verified image. Only [Engine.Write]
// makes one.
type Written struct {
	plan  *Plan
	proof *artifact.Verified
}

// Write streams the planned artifact into its slot, flushes, and compares the
// medium with the signed checksum. The boot loader does not know of it yet.
//
// On error the running slot is untouched and boots; the content of the other
// one is unknown, and the next Write of the same artifact rewrites only what
// differs.
func (e *Engine) Write(ctx context.Context, p *Plan) (*Written, error) {
	w, err := e.write(ctx, p)
	if err != nil {
		return nil, errors.Join(err, e.runError(ctx, "Download"))
	}
	return w, nil
}

func (e *Engine) write(ctx context.Context, p *Plan) (*Written, error) {
	h := p.Header()
	if err := e.Scripts.Run(ctx, "Download", "Enter"); err != nil {
		return nil, err
	}
	// A script may have changed what was planned for. Mender's clients find an
	// image too large here, so that Download_Error runs.
	target := e.Slots.Partition(p.Target)
	if err := errors.Join(checkSize(target, p.File.Size), e.checkTarget(target)); err != nil {
		return nil, err
	}
	// Write 1. The slot must be unreachable before its first byte changes: an
	// environment that is still armed for it would boot half an image.
	if err := e.Loader.BeforeWrite(ctx, p.Target); err != nil {
		return nil, fmt.Errorf("disarm slot %s: %w", p.Target, err)
	}
	// Write 2. It says whose half-written image a later run finds there.
	r := p.record
	attempt := state.Attempt{ManifestDigest: hexDigest(h), TargetSlot: p.Target.String(), BootID: e.BootID}
	if r.Attempt != nil && r.Attempt.ManifestDigest == attempt.ManifestDigest {
		attempt.Starts = r.Attempt.Starts
	}
	r.Attempt = &attempt
	if err := e.Store.Save(r); err != nil {
		return nil, err
	}
	p.record = r
	proof, err := e.stream(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := e.Scripts.Run(ctx, "Download", "Leave"); err != nil {
		return nil, err
	}
	return &Written{plan: p, proof: proof}, nil
}

// stream is writes 3 and 4: payload, flush, read back.
func (e *Engine) stream(ctx context.Context, p *Plan) (_ *artifact.Verified, err error) {
	t, err := e.OpenTarget(e.Slots.Partition(p.Target))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	h := p.Header()
	sink := &progress{engine: e, event: Event{Step: StepWrite, Artifact: h.Name, Slot: p.Target, Total: p.File.Size}, w: t}
	proof, err := p.art.Copy(ctx, func(artifact.File) (io.Writer, error) { return sink, nil })
	if err != nil {
		return nil, err
	}
	if err := t.Sync(); err != nil {
		return nil, err
	}
	if e.SkipVerify {
		return proof, nil
	}
	e.report(Event{Step: StepVerify, Artifact: h.Name, Slot: p.Target, Bytes: p.File.Size, Total: p.File.Size})
	return proof, t.Verify(ctx, h.Files[0].SHA256)
}

// progress tells how much of the image has been handed to the slot.
type progress struct {
	engine *Engine
	event  Event
	w      io.Writer
}

func (p *progress) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.event.Bytes += int64(n)
	p.engine.report(p.event)
	return n, err
}

// Arm makes the boot loader try the written slot at the next boot and fall
// back if that boot is not committed. It does not reboot.
//
// On error the device is as before: the environment is disarmed again and
// nothing is pending. If even that fails, the error says so, the record stays,
// and [Engine.Recover] tries again.
func (e *Engine) Arm(ctx context.Context, w *Written) error {
	if w == nil || !w.proof.Valid() {
		return errors.New("arm: the slot was not verified")
	}
	p, h := w.plan, w.plan.Header()
	// The scripts belong to the update that becomes pending in write 5. A cut
	// in between leaves scripts that nothing runs.
	if err := e.Scripts.Install(h.FormatVersion, toScripts(h.Scripts)); err != nil {
		return err
	}
	r := p.record
	started := *r.Attempt
	started.Starts++ // kept until a commit: a start that never comes to a verdict must not repeat for ever
	r.Attempt = &started
	r.Pending = e.pendingFor(p)
	// Write 5. From here on an interruption is an update to be closed.
	if err := e.Store.Save(r); err != nil {
		return err
	}
	if err := e.enable(ctx, p.Target, r); err != nil {
		return errors.Join(err, e.runError(ctx, "ArtifactInstall"), e.undo(ctx, r))
	}
	return nil
}

// enable is writes 6 and 7 with the scripts around them.
func (e *Engine) enable(ctx context.Context, target bootenv.Slot, r state.Record) error {
	if err := e.Scripts.Run(ctx, "ArtifactInstall", "Enter"); err != nil {
		return err
	}
	e.report(Event{Step: StepArm, Artifact: r.Pending.ArtifactName, Slot: target})
	// Write 6. The slot is whole and on the medium; one transaction of the
	// boot environment makes it the one to try.
	if err := e.Loader.Arm(ctx, target); err != nil {
		return fmt.Errorf("arm slot %s: %w", target, err)
	}
	if err := e.Scripts.Run(ctx, "ArtifactInstall", "Leave"); err != nil {
		return err
	}
	// Write 7. Now any client may commit it.
	waiting := *r.Pending
	waiting.Version, waiting.InState = 1, ""
	r.Pending = &waiting
	return e.Store.Save(r)
}

func (e *Engine) pendingFor(p *Plan) *state.Pending {
	h := p.Header()
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
		TargetSlot:     p.Target.String(),
		BootID:         e.BootID,
		ManifestDigest: hexDigest(h),
	}
}

func hexDigest(h *artifact.Header) string { return fmt.Sprintf("%x", h.ManifestDigest) }

func toScripts(in []artifact.Script) []script.Script {
	out := make([]script.Script, len(in))
	for i, s := range in {
		out[i] = script.Script{Name: s.Name, Data: s.Data}
	}
	return out
}

// runError runs a state's error scripts. They run although the operation was
// canceled: cleaning up is what they are for.
func (e *Engine) runError(ctx context.Context, state string) error {
	return e.Scripts.Run(context.WithoutCancel(ctx), state, "Error")
}

// runAll runs a state's scripts, Enter and Leave, whatever becomes of them,
// and returns what failed.
func (e *Engine) runAll(ctx context.Context, state string) error {
	ctx = context.WithoutCancel(ctx)
	return errors.Join(e.Scripts.Run(ctx, state, "Enter"), e.Scripts.Run(ctx, state, "Leave"))
}
