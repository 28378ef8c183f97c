package bootenv

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Names of the variables (sources: Mender, boot loader integration;
// meta-mender, U-Boot patch "Generic boot code for Mender").
const (
	varPart        = "mender_boot_part"
	varPartHex     = "mender_boot_part_hex"
	varUpgrade     = "upgrade_available"
	varBootcount   = "bootcount"
	varCheckCanary = "mender_check_saveenv_canary"
	varCanary      = "mender_saveenv_canary"
)

// Parts are the partition numbers of the slots, as the boot loader counts.
type Parts struct {
	A, B int
}

func (p Parts) of(s Slot) int {
	if s == B {
		return p.B
	}
	return p.A
}

func (p Parts) slot(number int) (Slot, bool) {
	switch number {
	case p.A:
		return A, true
	case p.B:
		return B, true
	default:
		return A, false
	}
}

// Mender is the [Loader] of Mender's boot loader integration.
//
//	upgrade_available  mender_boot_part  phase
//	0                  the running slot  Steady
//	1                  the other slot    Armed
//	1                  the running slot  Trial
//	0                  the other slot    Inconsistent
type Mender struct {
	store  Store
	parts  Parts
	booted Slot
}

// NewMender returns the loader over a store. The slot that runs comes from the
// caller, who knows it from the mounted root file system: the environment is
// compared with it and never believed about it.
func NewMender(store Store, parts Parts, booted Slot) *Mender {
	return &Mender{store: store, parts: parts, booted: booted}
}

// Caps implements [Loader].
func (m *Mender) Caps() Caps { return Caps{Name: "mender", AutoRevert: true} }

// State implements [Loader]. A partition number that belongs to neither slot is
// [ErrMismatch]; any other value that nobody writes is [ErrCorrupt]. An absent
// upgrade_available counts as 0 and is reported in Degraded.
func (m *Mender) State(ctx context.Context) (State, error) {
	health, err := m.store.Check(ctx)
	if err != nil {
		return State{}, err
	}
	vars, err := m.store.Get(ctx, varPart, varPartHex, varUpgrade, varCheckCanary, varCanary)
	if err != nil {
		return State{}, err
	}
	s, err := m.decide(vars)
	if err != nil {
		// A wrong place reads like a wrong value, so the place is named.
		return State{}, fmt.Errorf("read boot environment%s: %w", inForce(health), err)
	}
	s.Degraded = append(s.Degraded, health.Degraded...)
	return s, nil
}

// inForce names the copy that was read.
func inForce(h Health) string {
	if h.Active < 0 || h.Active >= len(h.Copies) {
		return ""
	}
	if h.Vars < 0 {
		return " " + h.Copies[h.Active].Place
	}
	return fmt.Sprintf(" %s (%d variables)", h.Copies[h.Active].Place, h.Vars)
}

// decide is the table above, with everything that may be wrong. It is pure.
func (m *Mender) decide(vars map[string]string) (State, error) {
	if m.parts.A < 0 || m.parts.B < 0 || m.parts.A == m.parts.B {
		return State{}, fmt.Errorf("slot A is partition %d, slot B is partition %d: %w", m.parts.A, m.parts.B, ErrMismatch)
	}
	part, err := m.part(vars)
	if err != nil {
		return State{}, err
	}
	s := State{Booted: m.booted, Default: part, Next: part}
	if vars[varCheckCanary] == "1" && vars[varCanary] != "1" {
		s.CanaryMissing = true
	}
	switch vars[varUpgrade] {
	case "":
		s.Degraded = append(s.Degraded, varUpgrade+" is not set")
	case "0":
	case "1":
		s.Default = part.Other()
		s.Phase = Armed
		if part == m.booted {
			s.Phase = Trial
			s.Next = s.Default
		}
		return s, nil
	default:
		return State{}, fmt.Errorf("%s is %s, neither 0 nor 1: %w", varUpgrade, quote(vars[varUpgrade]), ErrCorrupt)
	}
	if part != m.booted {
		s.Phase = Inconsistent
	}
	return s, nil
}

// part returns the slot that mender_boot_part names. Both spellings of the
// number must agree, since U-Boot uses one for the kernel and one for the root.
func (m *Mender) part(vars map[string]string) (Slot, error) {
	dec, hex := vars[varPart], vars[varPartHex]
	if dec == "" {
		return A, fmt.Errorf("%s is not set: %w: is this the environment that the boot loader uses?", varPart, ErrCorrupt)
	}
	number, err := strconv.ParseUint(dec, 10, 31)
	if err != nil {
		return A, fmt.Errorf("%s is %s, not a partition number: %w", varPart, quote(dec), ErrCorrupt)
	}
	// Other clients write it in either case and with 0x. GRUB has none.
	if hex != "" {
		n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(hex), "0x"), 16, 31)
		if err != nil || n != number {
			return A, fmt.Errorf("%s is %s, but %s is %d: %w", varPartHex, quote(hex), varPart, number, ErrCorrupt)
		}
	}
	s, ok := m.parts.slot(int(number))
	if !ok {
		return A, fmt.Errorf("%s is %d, but slot A is partition %d and slot B is partition %d: %w",
			varPart, number, m.parts.A, m.parts.B, ErrMismatch)
	}
	return s, nil
}

// target returns the state if the slot may be written or armed, else why not.
func (m *Mender) target(ctx context.Context, s Slot) (State, error) {
	state, err := m.State(ctx)
	switch {
	case err != nil:
		return state, err
	case s == m.booted:
		return state, ErrBooted
	case state.Phase == Trial:
		return state, ErrTrial
	case state.Phase == Inconsistent:
		return state, m.inconsistent()
	case state.CanaryMissing:
		return state, ErrCanary
	default:
		return state, nil
	}
}

func (m *Mender) inconsistent() error {
	return fmt.Errorf("partition %d is running, but %s is %d and no trial is open: %w",
		m.parts.of(m.booted), varPart, m.parts.of(m.booted.Other()), ErrMismatch)
}

// CheckArm implements [Loader].
func (m *Mender) CheckArm(ctx context.Context, s Slot) error {
	_, err := m.checkArm(ctx, s)
	return err
}

func (m *Mender) checkArm(ctx context.Context, s Slot) (State, error) {
	state, err := m.target(ctx, s)
	if err != nil {
		return state, err
	}
	_, err = m.store.Check(ctx, m.armed(s)...)
	return state, err
}

// BeforeWrite implements [Loader].
func (m *Mender) BeforeWrite(ctx context.Context, s Slot) error {
	state, err := m.checkArm(ctx, s)
	if err != nil || state.Phase != Armed {
		return err
	}
	return m.store.Update(ctx, m.permanent(m.booted)...)
}

// Arm implements [Loader].
func (m *Mender) Arm(ctx context.Context, s Slot) error {
	if _, err := m.target(ctx, s); err != nil {
		return err
	}
	return m.store.Update(ctx, m.armed(s)...)
}

// CheckConfirm implements [Loader].
func (m *Mender) CheckConfirm(ctx context.Context) error {
	if err := m.onTrial(ctx); err != nil {
		return err
	}
	_, err := m.store.Check(ctx, m.confirmed()...)
	return err
}

// Confirm implements [Loader]. Like Mender's own clients it leaves bootcount
// alone; the boot loader ignores it while upgrade_available is 0.
func (m *Mender) Confirm(ctx context.Context) error {
	if err := m.onTrial(ctx); err != nil {
		return err
	}
	return m.store.Update(ctx, m.confirmed()...)
}

// onTrial tells why the running slot cannot be confirmed.
func (m *Mender) onTrial(ctx context.Context) error {
	state, err := m.State(ctx)
	if err != nil {
		return err
	}
	if state.Phase == Inconsistent {
		return m.inconsistent() // names the variable
	}
	return confirmable(state)
}

// Revert implements [Loader].
func (m *Mender) Revert(ctx context.Context) error {
	state, err := m.State(ctx)
	if err != nil {
		return err
	}
	if state.Phase != Armed && state.Phase != Trial {
		return nil
	}
	return m.store.Update(ctx, m.permanent(state.Default)...)
}

// confirmed are the variables that end a trial for good.
func (m *Mender) confirmed() []Var { return []Var{{varUpgrade, "0"}} }

// armed are the variables that make the next boot a trial of the slot.
func (m *Mender) armed(s Slot) []Var {
	return append(m.name(s), Var{varUpgrade, "1"}, Var{varBootcount, "0"})
}

// permanent are the variables that make the slot boot for good.
func (m *Mender) permanent(s Slot) []Var {
	return append(m.name(s), Var{varUpgrade, "0"}, Var{varBootcount, "0"})
}

// name are the variables that name the slot. Upper-case digits are what most
// installed clients write, so that a change of client changes no value.
func (m *Mender) name(s Slot) []Var {
	n := m.parts.of(s)
	return []Var{{varPart, strconv.Itoa(n)}, {varPartHex, fmt.Sprintf("%X", n)}}
}
