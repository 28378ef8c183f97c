package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
)

// Names of the checks about the boot loader.
const (
	checkLoader = "boot loader"
	checkEnv    = "boot environment"
	checkPhase  = "phase"
	checkUpdate = "next update"
)

const hintLoader = "docs/bootloaders.md says what is looked for; BootLoader in usb-updater.conf names one."

// boot looks at the boot loader.
func (x *doctor) boot(ctx context.Context, slots install.Slots) {
	b, err := x.device.Boot(slots)
	for _, reason := range b.Reasons {
		if err == nil { // the error lists them itself
			x.ok(checkLoader, "%s", reason)
		}
	}
	if err != nil {
		x.fail(checkLoader, hintLoader, err)
		return
	}
	caps := b.Loader.Caps()
	x.ok(checkLoader, "%s", b.Kind)
	if !caps.AutoRevert {
		x.warn(checkLoader, "A trial that hangs stays where it is.", "it does not go back by itself")
	}
	health := bootenv.Health{Active: -1}
	if b.Store != nil {
		if health, err = b.Store.Check(ctx); !x.store(b, health, err) {
			return
		}
	}
	if x.phase(ctx, b) {
		x.pending(ctx)
		x.nextUpdate(ctx, b, slots, health)
	}
}

// store tells how the variables are kept. It returns false if they cannot be
// read.
func (x *doctor) store(b device.Boot, h bootenv.Health, err error) bool {
	for i, c := range h.Copies {
		switch {
		case c.Err != nil && b.Kind == bootenv.KindCommand: // the error follows
		case c.Err != nil:
			hint := ""
			if h.Active >= 0 {
				hint = "The next update rewrites it. If it stays so, its place is wrong or its storage is failing."
			}
			x.warn(checkEnv, hint, "copy %d at %s is no good: %v", i, c.Place, c.Err)
		case b.Kind == bootenv.KindCommand: // behind programs, which do not show their copies
			x.ok(checkEnv, "read through %s", c.Place)
		case i == h.Active:
			x.ok(checkEnv, "copy %d at %s is in force%s", i, c.Place, flagByte(b, c))
		default:
			x.ok(checkEnv, "copy %d at %s is good%s", i, c.Place, flagByte(b, c))
		}
	}
	if err != nil {
		x.fail(checkEnv, "See docs/bootloaders.md. For U-Boot: compare /etc/fw_env.config with the boot loader's configuration; run saveenv once.", err)
		return false
	}
	if h.Vars >= 0 && h.Free >= 0 {
		x.ok(checkEnv, "%d variables, %d bytes left", h.Vars, h.Free)
	}
	for _, what := range h.Degraded {
		if !strings.HasPrefix(what, "copy at ") { // told above
			x.warn(checkEnv, "", "%s", what)
		}
	}
	copies := slices.Clone(b.Env.Copies)
	for i, c := range copies {
		if real, err := filepath.EvalSymlinks(c.Path); err == nil {
			copies[i].Path = real
		}
	}
	for _, what := range bootenv.LayoutWarnings(copies) {
		x.warn(checkEnv, "See docs/bootloaders.md, \"U-Boot layout\".", "%s", what)
	}
	if !h.Atomic {
		x.warn(checkEnv, "See docs/bootloaders.md for what each boot loader guarantees.", "a power cut while it is changed may lose it, as far as can be known")
	}
	return true
}

// flagByte tells the byte by which U-Boot knows which of two copies is newer.
func flagByte(b device.Boot, c bootenv.CopyHealth) string {
	if len(b.Env.Copies) < 2 {
		return ""
	}
	return fmt.Sprintf(", flag %d", c.Flags)
}

// phase tells where the device is. It returns false if that is not known.
func (x *doctor) phase(ctx context.Context, b device.Boot) bool {
	st, err := b.Loader.State(ctx)
	if err != nil {
		x.fail(checkPhase, "Boot loader and running system must name the same slots.", err)
		return false
	}
	text := fmt.Sprintf("%s: slot %s runs, %s boots next, %s is permanent", st.Phase, st.Booted, st.Next, st.Default)
	if st.Phase == bootenv.Inconsistent {
		x.warn(checkPhase, "After a rollback that is so until the reboot. Otherwise look at the boot loader's variables.", "%s", text)
	} else {
		x.ok(checkPhase, "%s", text)
	}
	if b.Store == nil {
		for _, what := range st.Degraded {
			x.warn(checkLoader, "", "%s", what)
		}
	}
	return true
}

// pending tells what record and boot loader call for together.
func (x *doctor) pending(ctx context.Context) {
	const check = "pending"
	action, record, err := x.device.Engine(readOnly{x.device.DataDir()}).Inspect(ctx)
	switch {
	case err != nil: // the record, the slots, or the boot loader; told already
	case action == install.ActionNone:
		x.ok(check, "no update is in progress")
	case action == install.ActionRefuse && record.Pending != nil:
		x.fail(check, "A person must look: no interruption of an update explains this.", install.ErrInconsistent)
	case action == install.ActionReboot:
		x.warn(check, "Reboot.", "%s waits for its reboot", nameOf(record))
	default:
		x.warn(check, "usb-updater boot-check does it.", "%s is in progress; to do: %s", nameOf(record), action)
	}
}

// nextUpdate tells whether an update could be armed, and what it would write.
func (x *doctor) nextUpdate(ctx context.Context, b device.Boot, slots install.Slots, h bootenv.Health) {
	target := slots.Inactive()
	err := b.Loader.CheckArm(ctx, target)
	switch {
	case errors.Is(err, bootenv.ErrTrial), errors.Is(err, bootenv.ErrMismatch):
		x.warn(checkUpdate, "", "not now: %v", err)
		return
	case errors.Is(err, bootenv.ErrCanary):
		x.fail(checkUpdate, "Run saveenv once in U-Boot, or boot once: Mender's U-Boot does it itself.", err)
		return
	case err != nil:
		x.fail(checkUpdate, "", err)
		return
	}
	var did []string
	if m, ok := b.Loader.(interface {
		ArmVars(bootenv.Slot) []bootenv.Var
	}); ok {
		for _, v := range m.ArmVars(target) {
			did = append(did, v.Name+"="+v.Value)
		}
	}
	text := fmt.Sprintf("goes to slot %s", target)
	if len(did) > 0 {
		text += ", then sets " + strings.Join(did, " ")
	}
	if to := h.Target(); to >= 0 && len(h.Copies) > 1 {
		text += " in copy " + fmt.Sprint(to)
	}
	if arg := b.Loader.Caps().RebootArgument; arg != "" {
		text += fmt.Sprintf(", then reboots with the argument %q", arg)
	}
	x.ok(checkUpdate, "%s", text)
}
