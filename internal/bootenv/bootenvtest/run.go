package bootenvtest

import (
	"context"
	"errors"
	"testing"

	"github.com/usb-updater/usb-updater/internal/bootenv"
)

// Device is a device under test: its boot environment, seen from the running
// system and from the boot loader.
type Device struct {
	// Loader returns the loader as a program in a system that runs from the
	// slot would open it.
	Loader func(booted bootenv.Slot) bootenv.Loader
	// Boot does what the boot loader does at power-on and returns the slot
	// that it starts.
	Boot func(t *testing.T) bootenv.Slot
	// Snapshot returns all bytes of the medium, to tell whether something was
	// written.
	Snapshot func(t *testing.T) string
}

const (
	a = bootenv.A
	b = bootenv.B
)

// Run tests that a loader keeps the promises of [bootenv.Loader]. open returns
// a new device whose slot A is permanent, each time.
func Run(t *testing.T, open func(t *testing.T) Device) {
	t.Helper()
	for _, tt := range []struct {
		name string
		test func(*device)
	}{
		{"steady", steady},
		{"confirm", confirm},
		{"fall back", fallBack},
		{"revert before the reboot", revertArmed},
		{"revert in the trial", revertTrial},
		{"revert without a trial", revertSteady},
		{"before write", beforeWrite},
		{"refuse the running slot", refuseBooted},
		{"refuse during a trial", refuseTrial},
		{"refuse the next slot", refuseNext},
		{"confirm too early", confirmEarly},
		{"arm twice", armTwice},
		{"back and forth", backAndForth},
		{"canceled", canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &device{T: t, Device: open(t)}
			d.reboot()
			tt.test(d)
		})
	}
}

// device is a Device with a running slot.
type device struct {
	*testing.T
	Device
	booted bootenv.Slot
	loader bootenv.Loader
}

func (d *device) reboot() {
	d.Helper()
	d.booted = d.Boot(d.T)
	d.loader = d.Loader(d.booted)
	if m, ok := d.loader.(bootenv.BootMarker); ok {
		d.do("MarkBooted", m.MarkBooted(d.Context()))
		d.quiet("second MarkBooted", nil, func() error { return m.MarkBooted(d.Context()) })
	}
}

// state fails the test unless the loader reports the phase and slots.
func (d *device) state(phase bootenv.Phase, booted, permanent, next bootenv.Slot) {
	d.Helper()
	got, err := d.loader.State(d.Context())
	if err != nil {
		d.Fatalf("State: %v", err)
	}
	if got.Phase != phase || got.Booted != booted || got.Default != permanent || got.Next != next {
		d.Fatalf("State = %s booted=%s default=%s next=%s, want %s booted=%s default=%s next=%s",
			got.Phase, got.Booted, got.Default, got.Next, phase, booted, permanent, next)
	}
}

func (d *device) do(what string, err error) {
	d.Helper()
	if err != nil {
		d.Fatalf("%s: %v", what, err)
	}
}

// quiet fails the test if f does not return want or writes anything.
func (d *device) quiet(what string, want error, f func() error) {
	d.Helper()
	before := d.Snapshot(d.T)
	if err := f(); !errors.Is(err, want) {
		d.Fatalf("%s = %v, want %v", what, err, want)
	}
	if d.Snapshot(d.T) != before {
		d.Fatalf("%s: the medium changed", what)
	}
}

func (d *device) arm(s bootenv.Slot) error         { return d.loader.Arm(d.Context(), s) }
func (d *device) beforeWrite(s bootenv.Slot) error { return d.loader.BeforeWrite(d.Context(), s) }
func (d *device) checkConfirm() error              { return d.loader.CheckConfirm(d.Context()) }
func (d *device) confirm() error                   { return d.loader.Confirm(d.Context()) }
func (d *device) revert() error                    { return d.loader.Revert(d.Context()) }

func steady(d *device) {
	d.state(bootenv.Steady, a, a, a)
	d.reboot()
	d.state(bootenv.Steady, a, a, a)
}

func confirm(d *device) {
	d.do("Arm", d.arm(b))
	d.state(bootenv.Armed, a, a, b)
	d.reboot()
	d.state(bootenv.Trial, b, a, a)
	d.quiet("CheckConfirm", nil, d.checkConfirm)
	d.do("Confirm", d.confirm())
	d.state(bootenv.Steady, b, b, b)
	for range 3 {
		d.reboot()
		d.state(bootenv.Steady, b, b, b)
	}
}

func fallBack(d *device) {
	d.do("Arm", d.arm(b))
	d.reboot()
	d.state(bootenv.Trial, b, a, a)
	d.reboot()
	d.state(bootenv.Steady, a, a, a)
	d.reboot()
	d.state(bootenv.Steady, a, a, a)
}

func revertArmed(d *device) {
	d.do("Arm", d.arm(b))
	d.do("Revert", d.revert())
	d.state(bootenv.Steady, a, a, a)
	d.reboot()
	d.state(bootenv.Steady, a, a, a)
}

func revertTrial(d *device) {
	d.do("Arm", d.arm(b))
	d.reboot()
	d.do("Revert", d.revert())
	d.state(bootenv.Inconsistent, b, a, a)
	d.quiet("second Revert", nil, d.revert)
	d.quiet("Confirm after Revert", bootenv.ErrMismatch, d.confirm)
	d.reboot()
	d.state(bootenv.Steady, a, a, a)
}

func revertSteady(d *device) {
	d.quiet("Revert", nil, d.revert)
}

func beforeWrite(d *device) {
	d.do("BeforeWrite when steady", d.beforeWrite(b))
	d.quiet("second BeforeWrite", nil, func() error { return d.beforeWrite(b) })
	d.state(bootenv.Steady, a, a, a)
	d.do("Arm", d.arm(b))
	d.do("BeforeWrite", d.beforeWrite(b))
	d.state(bootenv.Steady, a, a, a)
	d.reboot()
	d.state(bootenv.Steady, a, a, a)
}

func refuseBooted(d *device) {
	d.quiet("Arm", bootenv.ErrBooted, func() error { return d.arm(a) })
	d.quiet("BeforeWrite", bootenv.ErrBooted, func() error { return d.beforeWrite(a) })
}

func refuseTrial(d *device) {
	d.do("Arm", d.arm(b))
	d.reboot()
	d.quiet("Arm", bootenv.ErrTrial, func() error { return d.arm(a) })
	d.quiet("BeforeWrite", bootenv.ErrTrial, func() error { return d.beforeWrite(a) })
	d.state(bootenv.Trial, b, a, a)
}

func refuseNext(d *device) {
	d.do("Arm", d.arm(b))
	d.reboot()
	d.do("Revert", d.revert())
	d.quiet("Arm", bootenv.ErrMismatch, func() error { return d.arm(a) })
	d.quiet("BeforeWrite", bootenv.ErrMismatch, func() error { return d.beforeWrite(a) })
}

func confirmEarly(d *device) {
	d.quiet("CheckConfirm when steady", bootenv.ErrNoTrial, d.checkConfirm)
	d.quiet("Confirm when steady", bootenv.ErrNoTrial, d.confirm)
	d.do("Arm", d.arm(b))
	d.quiet("CheckConfirm when armed", bootenv.ErrNotBooted, d.checkConfirm)
	d.quiet("Confirm when armed", bootenv.ErrNotBooted, d.confirm)
	d.state(bootenv.Armed, a, a, b)
	d.reboot()
	d.do("Confirm", d.confirm())
	d.quiet("second Confirm", bootenv.ErrNoTrial, d.confirm)
}

func armTwice(d *device) {
	d.do("Arm", d.arm(b))
	d.quiet("second Arm", nil, func() error { return d.arm(b) })
	d.reboot()
	d.state(bootenv.Trial, b, a, a)
}

func backAndForth(d *device) {
	for range 3 { // each trial must count from the start
		other := d.booted.Other()
		d.do("BeforeWrite", d.beforeWrite(other))
		d.do("Arm", d.arm(other))
		d.reboot()
		d.do("Confirm", d.confirm())
		d.state(bootenv.Steady, other, other, other)
	}
	d.do("Arm", d.arm(a))
	d.reboot()
	d.reboot()
	d.state(bootenv.Steady, b, b, b)
}

func canceled(d *device) {
	ctx, cancel := context.WithCancel(d.Context())
	cancel()
	d.quiet("Arm", context.Canceled, func() error { return d.loader.Arm(ctx, b) })
	d.quiet("State", context.Canceled, func() error { _, err := d.loader.State(ctx); return err })
}
