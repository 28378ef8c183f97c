package install

import (
	"context"
	"fmt"
	"io"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// payload is what differs between an image for a slot and a payload of an update
// module. The flow around it, with its scripts and records, is one and the same,
// and speaks of states as Mender's update modules do.
//
// Each call is durable when it returns nil. do may be called again for a state
// that was cut short.
type payload interface {
	// download brings the payload to where it has no effect yet and reads the
	// artifact to its end. From its first write on p.begun is set.
	download(ctx context.Context, p *Plan) (*artifact.Verified, error)
	// ask answers whether a rollback is possible or a reboot is needed.
	ask(ctx context.Context, q module.Question) (bool, error)
	// do makes the payload effective or permanent, or undoes it.
	do(ctx context.Context, s module.State) error
	// cleanup removes what download made; without that it does nothing.
	cleanup(ctx context.Context) error
}

// payload returns what handles a payload type. The built-in one has no rival: a
// module of the name rootfs-image is ignored.
func (e *Engine) payload(payloadType string, target bootenv.Slot) payload {
	if payloadType == artifact.RootfsImage {
		return image{e, target}
	}
	return byModule{e, payloadType}
}

// payloadOf returns what handles the pending update.
func (e *Engine) payloadOf(p *state.Pending) payload {
	if !p.Slotted() {
		return e.payload(p.PayloadTypes[0], e.Slots.Booted)
	}
	target := e.Slots.Inactive()
	for _, s := range []bootenv.Slot{bootenv.A, bootenv.B} {
		if p.TargetSlot == s.String() {
			target = s
		}
	}
	return image{e, target}
}

// image is the payload of a root slot.
type image struct {
	e      *Engine
	target bootenv.Slot
}

// download is writes 1 to 4.
func (i image) download(ctx context.Context, p *Plan) (*artifact.Verified, error) {
	// A script may have changed what was planned for. Mender's clients find an
	// image too large here, so that Download_Error runs.
	target := i.e.Slots.Partition(p.Target)
	if err := checkSize(target, p.File.Size); err != nil {
		return nil, err
	}
	if err := i.e.checkTarget(target); err != nil {
		return nil, err
	}
	// Write 1. The slot must be unreachable before its first byte changes: an
	// environment that is still armed for it would boot half an image.
	if err := i.e.Loader.BeforeWrite(ctx, p.Target); err != nil {
		return nil, fmt.Errorf("disarm slot %s: %w", p.Target, err)
	}
	// Write 2. It says whose half-written image a later run finds there.
	if err := i.e.saveAttempt(p, p.Target.String()); err != nil {
		return nil, err
	}
	return i.e.stream(ctx, p)
}

// ask: the boot loader goes back, and only a reboot gets to the other slot.
func (i image) ask(context.Context, module.Question) (bool, error) { return true, nil }

func (i image) do(ctx context.Context, s module.State) error {
	switch s {
	case module.ArtifactInstall:
		// Write 6. The slot is whole and on the medium; one transaction of the
		// boot environment makes it the one to try.
		if err := i.e.Loader.Arm(ctx, i.target); err != nil {
			return fmt.Errorf("arm slot %s: %w", i.target, bootEnvError{err})
		}
	case module.ArtifactCommit:
		// Write 9. One transaction; the trial is over.
		if err := i.e.Loader.Confirm(ctx); err != nil {
			return fmt.Errorf("commit slot %s: %w", i.e.Slots.Booted, bootEnvError{err})
		}
	case module.ArtifactRollback:
		if err := i.e.Loader.Revert(ctx); err != nil {
			return fmt.Errorf("roll back: %w", bootEnvError{err})
		}
	case module.ArtifactFailure:
	}
	return nil
}

func (i image) cleanup(context.Context) error { return nil }

// byModule is a payload that an update module installs.
type byModule struct {
	e           *Engine
	payloadType string
}

// download is the attempt, the work tree with the payload, and the module's
// Download. A power cut in it leaves a work tree that nothing points to, and the
// next download makes a new one.
func (m byModule) download(ctx context.Context, p *Plan) (*artifact.Verified, error) {
	if err := m.e.saveAttempt(p, ""); err != nil {
		return nil, err
	}
	p.begun = true
	h := p.Header()
	what := module.Payload{
		ArtifactName: h.Name, ArtifactGroup: h.Group, PayloadType: h.PayloadType,
		HeaderInfo: h.HeaderInfo, TypeInfo: h.TypeInfo, MetaData: h.MetaData,
		CurrentName:  Provides(p.record, m.e.RunningName)["artifact_name"],
		CurrentGroup: p.record.ArtifactGroup,
		DeviceType:   m.e.DeviceType,
	}
	var proof *artifact.Verified
	progress := newPassing(m.e, p, m.payloadType)
	err := m.e.Modules.Download(ctx, what, func(ctx context.Context, open module.Open) (err error) {
		proof, err = p.art.Copy(ctx, func(f artifact.File) (io.Writer, error) {
			w, err := open(f.Name, f.Size)
			if err != nil {
				return nil, err
			}
			return progress.begin(w, f.Size), nil
		})
		return err
	})
	return proof, err
}

func (m byModule) ask(ctx context.Context, q module.Question) (bool, error) {
	if err := m.e.findModule(m.payloadType); err != nil {
		return false, err
	}
	return m.e.Modules.Ask(ctx, m.payloadType, q)
}

func (m byModule) do(ctx context.Context, s module.State) error {
	if err := m.e.findModule(m.payloadType); err != nil {
		return err
	}
	return m.e.Modules.Run(ctx, m.payloadType, s)
}

func (m byModule) cleanup(ctx context.Context) error {
	if m.e.Modules == nil {
		return nil
	}
	return m.e.Modules.Cleanup(context.WithoutCancel(ctx), m.payloadType)
}
