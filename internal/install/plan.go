package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/slot"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// Reasons why an artifact is not for this device.
var (
	// ErrDeviceType means that the device's type is not one of the artifact's.
	ErrDeviceType = errors.New("not compatible with device")
	// ErrDepends means that the device lacks something the artifact requires.
	ErrDepends = errors.New("artifact depends not satisfied")
	// ErrPayloadType means that this program has nothing that installs such a
	// payload.
	ErrPayloadType = errors.New("payload type is not supported")
	// ErrTooLarge means that the image does not fit the slot.
	ErrTooLarge = errors.New("image is larger than the partition")
	// ErrMounted means that the slot to write is in use as a file system.
	ErrMounted = errors.New("partition is mounted")
	// ErrNoBootID means that nothing would tell an update that waits for its
	// reboot from one whose trial failed.
	ErrNoBootID = errors.New("the boot loader needs to know one boot from the next, and the kernel gives no boot_id")
)

// Plan is an update that nothing speaks against. It is good for one
// [Engine.Write], in the run that made it.
type Plan struct {
	Target  bootenv.Slot  // of a root file system
	File    artifact.File // the first one; zero if there is none
	art     *artifact.Artifact
	record  state.Record
	payload payload
	begun   bool // there is something to clean up
}

// Header returns the header of the planned artifact.
func (p *Plan) Header() *artifact.Header { return p.art.Header() }

// Slotted reports whether the artifact is for a root slot.
func (p *Plan) Slotted() bool { return p.Header().PayloadType == artifact.RootfsImage }

// Ready closes what an interruption left behind and tells whether the device
// can take an update now; if not, the error is [ErrInProgress] or says what
// is wrong. With [ErrUnknown] it can take one by an update module. It costs
// nothing to ask before an artifact is looked at.
func (e *Engine) Ready(ctx context.Context) error {
	action, err := e.Recover(ctx)
	switch action {
	case ActionNone:
		return err
	case ActionFail, ActionFinish:
		// Closed: the slot that runs is the one that boots. A failed script on
		// the way is no reason to refuse the update that may repair it.
		again, inspectErr := e.inspect(ctx)
		if inspectErr == nil && again.action != ActionNone { // it could not be closed
			return errors.Join(ErrInProgress, err)
		}
		return inspectErr
	case ActionReboot, ActionDecide, ActionResume:
		return ErrInProgress
	default:
		return errors.Join(ErrInProgress, err)
	}
}

// Plan checks everything that can refuse the update but its size, and reads
// the artifact up to the first byte of the payload. Nothing was written to a
// slot, to a work tree or to the boot environment.
func (e *Engine) Plan(ctx context.Context, a *artifact.Artifact) (*Plan, error) {
	h := a.Header()
	if err := e.Ready(ctx); err != nil && (h.PayloadType == artifact.RootfsImage || !errors.Is(err, ErrUnknown)) {
		return nil, err
	}
	r, err := e.Store.Load()
	if err != nil {
		return nil, err
	}
	if err := CheckPayloadType(h, e.findModule); err != nil {
		return nil, err
	}
	if err := e.compatible(h, r); err != nil {
		return nil, err
	}
	p := &Plan{Target: e.Slots.Inactive(), art: a, record: r}
	p.payload = e.payload(h.PayloadType, p.Target)
	if p.Slotted() {
		if e.NoSlots != nil {
			return nil, e.NoSlots
		}
		if e.Loader.Caps().Volatile && e.BootID == "" {
			return nil, fmt.Errorf("arm slot %s: %w", p.Target, ErrNoBootID)
		}
		if err := e.Loader.CheckArm(ctx, p.Target); err != nil {
			return nil, fmt.Errorf("arm slot %s: %w", p.Target, bootEnvError{err})
		}
	}
	if p.File, err = a.FirstFile(); err != nil && (p.Slotted() || !errors.Is(err, artifact.ErrNoFiles)) {
		return nil, err
	}
	if !p.Slotted() {
		return p, nil
	}
	if err := e.checkTarget(e.Slots.Partition(p.Target)); err != nil {
		return nil, err
	}
	if p.File.Size == 0 {
		return nil, fmt.Errorf("artifact %q: the image is empty", h.Name)
	}
	return p, nil
}

// compatible is [Compatible] with what is known of this device. What the artifact
// asks for and the device cannot say is no answer.
func (e *Engine) compatible(h *artifact.Header, r state.Record) error {
	if e.NoType != nil {
		return e.NoType
	}
	if _, asks := h.Depends["artifact_name"]; asks && e.NoName != nil && r.ArtifactName == "" {
		return e.NoName
	}
	return Compatible(h, e.DeviceType, Provides(r, e.RunningName))
}

// findModule tells whether the device has an update module for the type.
func (e *Engine) findModule(payloadType string) error {
	if e.Modules == nil {
		return module.ErrNotFound
	}
	return e.Modules.Find(payloadType)
}

// Provides returns what the device has, in the terms of an artifact's depends.
// runningName is used where the record has no name.
func Provides(r state.Record, runningName string) map[string]string {
	p := maps.Clone(r.Provides)
	if p == nil {
		p = map[string]string{}
	}
	p["artifact_name"] = cmp.Or(r.ArtifactName, runningName, unknownName)
	if r.ArtifactGroup != "" {
		p["artifact_group"] = r.ArtifactGroup
	}
	return p
}

// Compatible tells whether a device of that type, which provides these things,
// may install the artifact. It is pure. What installs it is another question,
// see [CheckPayloadType].
func Compatible(h *artifact.Header, deviceType string, provides map[string]string) error {
	if err := CheckDeviceType(h, deviceType); err != nil {
		return err
	}
	return CheckDepends(h, provides)
}

// CheckPayloadType refuses an artifact whose payload this device cannot
// install ([ErrPayloadType]). find tells whether there is an update module for
// a type; nil stands for a device that has them all. A root file system needs
// none, and neither does an artifact without payload. State scripts of the
// latter would never run, so that it is refused with them. Another spelling of
// rootfs-image is a mistake, not a module's name.
func CheckPayloadType(h *artifact.Header, find func(payloadType string) error) error {
	switch {
	case h.Empty && len(h.Scripts) > 0:
		return fmt.Errorf("artifact %q: state scripts without payload: %w", h.Name, ErrPayloadType)
	case h.Empty, h.PayloadType == artifact.RootfsImage:
		return nil
	case strings.EqualFold(h.PayloadType, artifact.RootfsImage):
		return fmt.Errorf("artifact %q: %q: %w: it is not spelled %s", h.Name, h.PayloadType, ErrPayloadType, artifact.RootfsImage)
	case find == nil:
		return nil
	}
	if err := find(h.PayloadType); err != nil {
		return fmt.Errorf("artifact %q: %q: %w: %w", h.Name, h.PayloadType, ErrPayloadType, err)
	}
	return nil
}

// CheckDeviceType refuses an artifact for other devices ([ErrDeviceType]).
func CheckDeviceType(h *artifact.Header, deviceType string) error {
	switch {
	case deviceType == "":
		return fmt.Errorf("artifact %q: %w of unknown type: device_type is empty", h.Name, ErrDeviceType)
	case !h.MatchesDevice(deviceType):
		return fmt.Errorf("artifact %q: image (device types %q) %w %q", h.Name, h.DeviceTypes, ErrDeviceType, deviceType)
	}
	return nil
}

// CheckDepends refuses an artifact that needs something that the device does
// not provide ([ErrDepends]).
func CheckDepends(h *artifact.Header, provides map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(h.Depends)) {
		want := h.Depends[key]
		have, ok := provides[key]
		switch {
		case !ok:
			return fmt.Errorf("artifact %q: %w: it needs %q, which the device does not provide", h.Name, ErrDepends, key)
		case !slices.Contains(want, have):
			return fmt.Errorf("artifact %q: %w: it needs %q to be one of %q, the device has %q", h.Name, ErrDepends, key, want, have)
		}
	}
	return nil
}

// checkSize tells whether the image fits.
func checkSize(p slot.Partition, size int64) error {
	if size > p.Size {
		return fmt.Errorf("slot %s: %w: image %d bytes, partition %d bytes: %w", p.Path, ErrTooLarge, size, p.Size, unix.ENOSPC)
	}
	return nil
}

// checkTarget tells whether the slot may be written.
func (e *Engine) checkTarget(p slot.Partition) error {
	if running := e.Slots.Partition(e.Slots.Booted); running.ID == p.ID {
		return fmt.Errorf("slot %s: it is the running root file system", p.Path)
	}
	where, err := e.Mounted(p)
	if err != nil {
		return fmt.Errorf("slot %s: %w", p.Path, err)
	}
	if where != "" && e.Unmount != nil {
		if err := e.Unmount(p); err != nil {
			return fmt.Errorf("slot %s: %w on %s: unmount it: %w", p.Path, ErrMounted, strings.TrimSpace(where), err)
		}
		where = ""
	}
	if where != "" {
		return fmt.Errorf("slot %s: %w on %s: unmount it first", p.Path, ErrMounted, strings.TrimSpace(where))
	}
	return nil
}
