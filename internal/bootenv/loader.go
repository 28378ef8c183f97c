package bootenv

import (
	"context"
	"errors"
	"fmt"
)

// Slot is one of the two root file systems.
type Slot uint8

// The slots.
const (
	A Slot = iota
	B
)

// Other returns the slot that s is not.
func (s Slot) Other() Slot {
	if s == A {
		return B
	}
	return A
}

// String returns "A" or "B".
func (s Slot) String() string {
	switch s {
	case A:
		return "A"
	case B:
		return "B"
	default:
		return fmt.Sprintf("slot %d", uint8(s))
	}
}

// Phase is where the device is between one permanent slot and the next.
type Phase uint8

// The phases.
const (
	// Steady: the slot that runs is the one that boots for good.
	Steady Phase = iota
	// Armed: the other slot is to be tried at the next boot. It may also have
	// been tried already by a boot loader that went back without saying so;
	// only a boot identifier tells.
	Armed
	// Trial: the slot that runs is on trial. If the device boots again before
	// it is confirmed, the boot loader goes back.
	Trial
	// Inconsistent: another slot than the one that runs is to boot for good.
	// That is so after a rollback from a trial, until the reboot; or the boot
	// loader could not start its choice, or uses another environment.
	Inconsistent
)

// String returns the phase in one lower-case word.
func (p Phase) String() string {
	switch p {
	case Steady:
		return "steady"
	case Armed:
		return "armed"
	case Trial:
		return "trial"
	case Inconsistent:
		return "inconsistent"
	default:
		return fmt.Sprintf("phase %d", uint8(p))
	}
}

// State is what boot loader and running system say together.
type State struct {
	Booted   Slot // the slot that runs
	Default  Slot // the slot that is or stays permanent unless a trial is confirmed
	Next     Slot // the slot that boots next if nothing more is done
	Phase    Phase
	Degraded []string // what is not as it should be, one phrase each
	// CanaryMissing: the boot loader asks for a proof that it uses this
	// environment, and there is none, so that arming it might do nothing.
	CanaryMissing bool
}

// Caps are what a boot loader's way of trying a slot can do. They do not change
// while the program runs.
type Caps struct {
	// Name says which loader it is, in one lower-case word with dashes:
	// "mender-uboot".
	Name string
	// AutoRevert: a trial that is not confirmed ends with the next boot,
	// without help of ours.
	AutoRevert bool
	// Volatile: what Arm arms holds for the next reboot only, and State does
	// not see it: it says Steady until that reboot.
	Volatile bool
	// RebootArgument is what the reboot after Arm must pass to the firmware,
	// "" if any reboot will do (source: reboot(2), LINUX_REBOOT_CMD_RESTART2).
	RebootArgument string
}

// Errors of a [Loader], to be told apart with errors.Is. None of them comes
// after a write.
var (
	// ErrCanary means that the boot loader asks for a proof that it uses this
	// environment, and the proof is missing.
	ErrCanary = errors.New("mender_saveenv_canary is not set: the boot loader does not use this environment, or has not saved it yet")
	// ErrMismatch means that environment and running system do not fit.
	ErrMismatch = errors.New("boot environment does not match the running system")
	// ErrTrial means that a trial is running: the other slot is the way back.
	ErrTrial = errors.New("a trial boot is running: commit or roll back first")
	// ErrNoTrial means that there is no trial to confirm.
	ErrNoTrial = errors.New("no trial boot is running")
	// ErrNotBooted means that the slot on trial is not the one that runs.
	ErrNotBooted = errors.New("the slot to confirm is not running: reboot first")
	// ErrBooted means that the slot is the one that runs.
	ErrBooted = errors.New("the slot is running")
)

// Loader tells the boot loader which slot to start.
//
// Every method that changes something is one transaction. On nil its goal is
// durable; if the goal was met before, nothing is written. On error the old or
// the new state is in force: State tells, and a retry is safe. At every instant
// the slot that runs, or the way back from its trial, is bootable.
type Loader interface {
	// Caps tells what this boot loader can do. It reads nothing.
	Caps() Caps

	// State reads and changes nothing. It refuses to guess: values that do not
	// make sense are an error.
	State(ctx context.Context) (State, error)

	// CheckArm tells whether Arm would work, and writes nothing. It refuses
	// the slot that runs ([ErrBooted]), the way back from a trial
	// ([ErrTrial]), a slot that boots next for good ([ErrMismatch]), and an
	// environment that the boot loader does not use ([ErrCanary]) or that
	// cannot be changed.
	CheckArm(ctx context.Context, s Slot) error

	// BeforeWrite makes the slot unreachable before its first byte changes.
	// It refuses as CheckArm does.
	BeforeWrite(ctx context.Context, s Slot) error

	// Arm makes the next boot a trial of the slot, which must be complete on
	// its medium. It refuses as BeforeWrite does.
	//
	// Until the reboot nothing else should write the boot environment: with a
	// medium that lies about flushes, a second write soon after this one may
	// damage both copies.
	Arm(ctx context.Context, s Slot) error

	// CheckConfirm tells whether Confirm would work, and writes nothing. It
	// refuses if no trial is open ([ErrNoTrial]), if the slot on trial does not
	// run yet ([ErrNotBooted]), because a slot that never ran must not become
	// permanent, and where the environment cannot be changed.
	CheckConfirm(ctx context.Context) error

	// Confirm makes the running trial permanent. It refuses as CheckConfirm
	// does.
	Confirm(ctx context.Context) error

	// Revert ends an armed or running trial: State.Default boots next, for
	// good. Without a trial there is nothing to do.
	Revert(ctx context.Context) error
}
