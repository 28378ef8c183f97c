package main

import (
	"context"
	"errors"
	"slices"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/gate"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/script"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/report"
)

// errStickChanged means that two reads of a stick differ.
var errStickChanged = errors.New("the stick returned other data than a moment ago")

// codes tells which code an error has wherever it comes from. The first line
// that fits counts.
var codes = []struct {
	code report.Code
	errs []error
}{
	{report.Canceled, []error{context.Canceled}},
	{report.StickRemoved, []error{mount.ErrGone}},
	{report.StickComposite, []error{mount.ErrComposite}},
	{report.StickNotAllowed, []error{mount.ErrBus, mount.ErrProtected}},
	{report.TooManySticks, []error{errTooMany}},
	{report.Inhibited, []error{gate.ErrLocked, errHeldOff}},
	{report.LowBattery, []error{gate.ErrLowBattery}},
	{report.NotConfirmed, []error{gate.ErrNotConfirmed}},
	{report.Pending, []error{install.ErrInProgress, install.ErrNotRebooted}},
	{report.StickLied, []error{errStickChanged}},
	{report.NotForDevice, []error{install.ErrDeviceType, install.ErrDepends, install.ErrPayloadType, install.ErrTooLarge}},
	{report.SlotFailed, []error{install.ErrMounted}},
	{report.ModuleFailed, []error{install.ErrNotRolledBack, install.ErrInterrupted}},
	{report.Busy, []error{state.ErrLocked}},
	{report.StateFailed, []error{state.ErrStateVersion, state.ErrCorrupt, state.ErrIO}},
	{report.ManagedClient, []error{device.ErrManaged}},
	{report.BootEnvFailed, []error{
		install.ErrBootEnv, install.ErrInconsistent, bootenv.ErrNotFound, bootenv.ErrCorrupt, bootenv.ErrUnsupported, bootenv.ErrBusy, bootenv.ErrNoSpace,
		bootenv.ErrReadOnlyVar, bootenv.ErrNotAtomic, bootenv.ErrVerify, bootenv.ErrCanary, bootenv.ErrMismatch,
		bootenv.ErrProgram, install.ErrNoBootID,
	}},
}

// codeOf finds the result code of an error that came from anywhere in the
// flow; otherwise is the code of the place where it was noticed.
func codeOf(err error, otherwise report.Code) report.Code {
	for _, c := range codes {
		if slices.ContainsFunc(c.errs, func(target error) bool { return errors.Is(err, target) }) {
			return c.code
		}
	}
	if _, ok := errors.AsType[*script.Failure](err); ok {
		return report.ScriptFailed
	}
	if _, ok := errors.AsType[*module.Failure](err); ok {
		return report.ModuleFailed
	}
	if ae, ok := errors.AsType[*artifact.Error](err); ok {
		switch ae.Kind {
		case artifact.Media:
			return report.StickFailed
		case artifact.Unsupported:
			return report.Refused
		case artifact.Format, artifact.Checksum, artifact.Signature, artifact.Limit:
		}
		return report.BadArtifact
	}
	return otherwise
}
