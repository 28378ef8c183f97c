package bootenv

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// RAUCDialect is which of two families of boot scripts reads the variables.
type RAUCDialect uint8

// The dialects (source: RAUC, contrib/uboot.sh, contrib/grub.conf and
// src/bootloaders).
const (
	// RAUCUBoot: BOOT_ORDER lists the slots, BOOT_<name>_LEFT is how often the
	// slot may still be started, in hexadecimal. The boot loader starts the
	// first slot of the list that has attempts left and takes one away.
	RAUCUBoot RAUCDialect = iota
	// RAUCGRUB: ORDER lists the slots. The boot loader starts the first one
	// with <name>_OK 1 and <name>_TRY 0, and sets TRY to 1 before.
	RAUCGRUB
)

// MaxRAUCAttempts is the most attempts that a slot can have: what every boot
// script can count, on 32-bit devices too.
const MaxRAUCAttempts = 0x7fffffff

const (
	// varTrial names the slot that is armed or on trial. It is ours: neither
	// the boot scripts nor RAUC know it, and RAUC's variables alone cannot tell
	// a trial from a permanent slot that nobody has marked good since its boot.
	varTrial = "usb_updater_trial"
	// noTrial is its value else. It is as long as the customary slot names, so
	// that the variables after it stay where they are.
	noTrial = "-"
	// trialAttempts are the attempts of an armed slot: one boot is the trial.
	trialAttempts = 1
	// fewAttempts are too few for a permanent slot: RAUC's own number.
	fewAttempts = 3
)

// RAUCConfig says how a boot script of RAUC's kind is used.
type RAUCConfig struct {
	Dialect RAUCDialect
	// Names are the boot names of slots A and B. Empty ones mean "A" and "B".
	Names [2]string
	// Attempts is how often a permanent slot may be started before it is
	// marked good again, with RAUCUBoot; 0 means MaxRAUCAttempts. RAUC's own
	// number is 3: then a permanent slot that cannot start is given up for the
	// other one, and so is one whose starts are not reported with MarkBooted.
	Attempts uint32
}

// RAUC is the [Loader] of boot scripts of RAUC's kind, over the variables that
// such a script reads.
//
// A slot is bootable if it is in the order and has attempts left, or OK 1 and
// TRY 0. The first bootable slot of the order boots next. That alone has no
// notion of a trial, so a variable of ours names the slot on trial; it counts
// only as long as the boot loader's own variables agree with it:
//
//	trial names       first bootable  phase
//	the other slot    the other slot  Armed: the order is other, running; the
//	                                  other has one attempt, the running one is
//	                                  bootable behind it
//	the running slot  the other slot  Trial: its one attempt is used up; the
//	                  or none         other one is the way back
//	anything else     the running     Steady; also after a fall back, when the
//	                                  trial still names the other slot
//	anything else     the other slot  Inconsistent if the order puts it before
//	                                  the running one; else Steady, but see below
//	anything          none            Steady if the running slot is the first of
//	                                  the order: the scripts then begin again
//	                                  from there; else Inconsistent
//
// In this scheme a start uses an attempt of a permanent slot, too. With GRUB it
// has only one. A running system must give it back with [RAUC.MarkBooted] after
// each start; until then State.Next is the other slot although the phase is
// Steady, and Degraded says so.
type RAUC struct {
	store  Store
	cfg    RAUCConfig
	booted Slot
}

// NewRAUC returns the loader over a store. The slot that runs comes from the
// caller, as in [NewMender].
func NewRAUC(store Store, cfg RAUCConfig, booted Slot) *RAUC {
	for i, name := range [2]string{"A", "B"} {
		if cfg.Names[i] == "" {
			cfg.Names[i] = name
		}
	}
	if cfg.Attempts == 0 || cfg.Attempts > MaxRAUCAttempts {
		cfg.Attempts = MaxRAUCAttempts
	}
	return &RAUC{store: store, cfg: cfg, booted: booted}
}

// Caps implements [Loader].
func (r *RAUC) Caps() Caps {
	c := Caps{Name: "rauc-uboot", AutoRevert: true}
	if r.cfg.Dialect == RAUCGRUB {
		c.Name = "rauc-grub"
	}
	return c
}

// raucState is State with what the verbs need beside it.
type raucState struct {
	State
	order    []string // as the boot loader reads it
	bootable [2]bool
	left     [2]uint64 // attempts, as if GRUB counted
	trial    string
}

// State implements [Loader]. An order without either slot, or with a slot of
// another system that boots before them, is [ErrMismatch]; a value that nobody
// writes is [ErrCorrupt].
func (r *RAUC) State(ctx context.Context) (State, error) {
	s, err := r.state(ctx)
	return s.State, err
}

func (r *RAUC) state(ctx context.Context) (raucState, error) {
	health, err := r.store.Check(ctx)
	if err != nil {
		return raucState{}, err
	}
	vars, err := r.store.Get(ctx)
	if err != nil {
		return raucState{}, err
	}
	s, err := r.decide(vars)
	if err != nil {
		return raucState{}, fmt.Errorf("read boot environment%s: %w", inForce(health), err)
	}
	s.Degraded = append(s.Degraded, health.Degraded...)
	return s, nil
}

// decide is the table above, with everything that may be wrong. It is pure.
func (r *RAUC) decide(vars map[string]string) (raucState, error) {
	s := raucState{State: State{Booted: r.booted}, trial: vars[varTrial]}
	if err := r.readOrder(&s, vars[r.orderVar()]); err != nil {
		return s, err
	}
	for _, slot := range [2]Slot{A, B} {
		left, err := r.attempts(vars, slot)
		if err != nil {
			return s, err
		}
		s.left[slot] = left
		s.bootable[slot] = left > 0 && slices.Contains(s.order, r.name(slot))
	}
	other := r.booted.Other()
	runningFirst := r.first(s.order) == r.booted
	s.Default, s.Next = r.booted, r.booted // Steady
	switch {
	case s.bootable[r.booted] && (runningFirst || !s.bootable[other]):
		return s, nil
	case s.trial == r.name(r.booted) && !s.bootable[r.booted]:
		s.Phase, s.Default = Trial, other
	}
	switch {
	case s.bootable[other]:
		s.Next = other
		switch {
		case s.Phase == Trial:
		case s.trial == r.name(other) && s.bootable[r.booted]:
			s.Phase = Armed
		case runningFirst:
			s.Degraded = append(s.Degraded, fmt.Sprintf("slot %s has no attempt left and is not marked good: slot %s boots next",
				r.name(r.booted), r.name(other)))
		default:
			s.Phase, s.Default = Inconsistent, other
		}
	default:
		s.Degraded = append(s.Degraded, "no slot has an attempt left")
		if s.Phase == Steady && !runningFirst && !r.failedTrial(s) {
			s.Phase, s.Default, s.Next = Inconsistent, other, other
		}
	}
	return s, nil
}

// failedTrial tells whether the boot loader fell back from a trial of the
// other slot to the one that runs.
func (r *RAUC) failedTrial(s raucState) bool {
	other := r.booted.Other()
	return s.trial == r.name(other) && !s.bootable[other]
}

func (r *RAUC) readOrder(s *raucState, text string) error {
	s.order = strings.Fields(text)
	if len(s.order) == 0 {
		return fmt.Errorf("%s is not set: %w: is this the environment that the boot loader uses?", r.orderVar(), ErrCorrupt)
	}
	if r.name(A) == r.name(B) {
		return fmt.Errorf("both slots are called %s: %w", quote(r.name(A)), ErrMismatch)
	}
	if !slices.Contains(r.cfg.Names[:], s.order[0]) {
		return fmt.Errorf("%s is %s, but the slots are %s and %s: %w",
			r.orderVar(), quote(text), quote(r.name(A)), quote(r.name(B)), ErrMismatch)
	}
	return nil
}

// first returns the slot that comes first in an order, which begins with one.
func (r *RAUC) first(order []string) Slot {
	if order[0] == r.name(B) {
		return B
	}
	return A
}

// attempts returns how often the slot may be started.
func (r *RAUC) attempts(vars map[string]string, s Slot) (uint64, error) {
	if r.cfg.Dialect == RAUCUBoot {
		name := "BOOT_" + r.name(s) + "_LEFT"
		n, err := strconv.ParseUint(vars[name], 16, 31)
		if err != nil {
			return 0, fmt.Errorf("%s is %s, not a hexadecimal number of attempts: %w", name, quote(vars[name]), ErrCorrupt)
		}
		return n, nil
	}
	flags := [2]string{r.name(s) + "_OK", r.name(s) + "_TRY"}
	for _, name := range flags {
		if v := vars[name]; v != "0" && v != "1" {
			return 0, fmt.Errorf("%s is %s, neither 0 nor 1: %w", name, quote(v), ErrCorrupt)
		}
	}
	if vars[flags[0]] == "1" && vars[flags[1]] == "0" {
		return 1, nil
	}
	return 0, nil
}

func (r *RAUC) name(s Slot) string { return r.cfg.Names[s] }

func (r *RAUC) orderVar() string {
	if r.cfg.Dialect == RAUCGRUB {
		return "ORDER"
	}
	return "BOOT_ORDER"
}

// target returns the state if the slot may be written or armed, else why not.
func (r *RAUC) target(ctx context.Context, s Slot) (raucState, error) {
	state, err := r.state(ctx)
	switch {
	case err != nil:
		return state, err
	case s == r.booted:
		return state, ErrBooted
	case state.Phase == Trial:
		return state, ErrTrial
	case state.Phase == Inconsistent:
		return state, r.inconsistent(state)
	default:
		return state, nil
	}
}

func (r *RAUC) inconsistent(s raucState) error {
	return fmt.Errorf("slot %s is running, but %s is %s and no trial is open: %w",
		r.name(r.booted), r.orderVar(), quote(strings.Join(s.order, " ")), ErrMismatch)
}

// CheckArm implements [Loader].
func (r *RAUC) CheckArm(ctx context.Context, s Slot) error {
	_, err := r.checkArm(ctx, s)
	return err
}

func (r *RAUC) checkArm(ctx context.Context, s Slot) (raucState, error) {
	state, err := r.target(ctx, s)
	if err != nil {
		return state, err
	}
	_, err = r.store.Check(ctx, r.armed(state, s)...)
	return state, err
}

// BeforeWrite implements [Loader]. A slot that is the fallback of the running
// one is bootable until then, so this may write where [Mender] need not.
func (r *RAUC) BeforeWrite(ctx context.Context, s Slot) error {
	state, err := r.checkArm(ctx, s)
	if err != nil || !state.bootable[s] && state.bootable[r.booted] {
		return err
	}
	return r.store.Update(ctx, r.permanent(state, r.booted)...)
}

// Arm implements [Loader]. The running slot is marked good with it: it is the
// way back.
func (r *RAUC) Arm(ctx context.Context, s Slot) error {
	state, err := r.target(ctx, s)
	if err != nil {
		return err
	}
	return r.store.Update(ctx, r.armed(state, s)...)
}

// CheckConfirm implements [Loader].
func (r *RAUC) CheckConfirm(ctx context.Context) error {
	if err := r.onTrial(ctx); err != nil {
		return err
	}
	_, err := r.store.Check(ctx, r.confirmed()...)
	return err
}

// Confirm implements [Loader]. The other slot stays the fallback of this one.
func (r *RAUC) Confirm(ctx context.Context) error {
	if err := r.onTrial(ctx); err != nil {
		return err
	}
	return r.store.Update(ctx, r.confirmed()...)
}

// onTrial tells why the running slot cannot be confirmed.
func (r *RAUC) onTrial(ctx context.Context) error {
	state, err := r.state(ctx)
	if err != nil {
		return err
	}
	if state.Phase == Inconsistent {
		return r.inconsistent(state) // names the variable
	}
	return confirmable(state.State)
}

// Revert implements [Loader].
func (r *RAUC) Revert(ctx context.Context) error {
	state, err := r.state(ctx)
	if err != nil {
		return err
	}
	if state.Phase != Armed && state.Phase != Trial {
		return nil
	}
	return r.store.Update(ctx, r.permanent(state, state.Default)...)
}

// MarkBooted implements [BootMarker]. After a fall back it also makes the slot
// unreachable that failed: some boot scripts give every slot new attempts when
// none has any left.
func (r *RAUC) MarkBooted(ctx context.Context) error {
	state, err := r.state(ctx)
	if err != nil || state.Phase != Steady {
		return err
	}
	if r.failedTrial(state) {
		return r.store.Update(ctx, r.permanent(state, r.booted)...)
	}
	enough := uint64(1)
	if r.cfg.Dialect == RAUCUBoot {
		enough = uint64(min(r.cfg.Attempts, fewAttempts))
	}
	if state.left[r.booted] >= enough {
		return nil
	}
	return r.store.Update(ctx, r.good(r.booted, uint64(r.cfg.Attempts))...)
}

// confirmed are the variables that end a trial for good.
func (r *RAUC) confirmed() []Var {
	return append(r.good(r.booted, uint64(r.cfg.Attempts)), Var{varTrial, noTrial})
}

// armed are the variables that make the next boot a trial of the slot.
func (r *RAUC) armed(state raucState, s Slot) []Var {
	vars := append(r.reorder(state, s, s.Other()), r.good(s.Other(), uint64(r.cfg.Attempts))...)
	return append(append(vars, r.good(s, trialAttempts)...), Var{varTrial, r.name(s)})
}

// permanent are the variables that make the slot boot for good, and the other
// one never. U-Boot's order leaves that out, as RAUC does: the script's new
// attempts then do not reach it. GRUB's keeps it; OK 0 outlasts everything.
func (r *RAUC) permanent(state raucState, s Slot) []Var {
	order := []Slot{s}
	if r.cfg.Dialect == RAUCGRUB {
		order = append(order, s.Other())
	}
	vars := append(r.reorder(state, order...), r.good(s, uint64(r.cfg.Attempts))...)
	return append(append(vars, r.good(s.Other(), 0)...), Var{varTrial, noTrial})
}

// reorder is the order with these slots first. Names of others, such as a
// rescue system, stay behind them.
func (r *RAUC) reorder(state raucState, first ...Slot) []Var {
	var order []string
	for _, s := range first {
		order = append(order, r.name(s))
	}
	for _, name := range state.order {
		if !slices.Contains(r.cfg.Names[:], name) {
			order = append(order, name)
		}
	}
	return []Var{{r.orderVar(), strings.Join(order, " ")}}
}

// good are the variables that give a slot attempts; none make it unreachable.
func (r *RAUC) good(s Slot, attempts uint64) []Var {
	if r.cfg.Dialect == RAUCUBoot {
		return []Var{{"BOOT_" + r.name(s) + "_LEFT", strconv.FormatUint(attempts, 16)}}
	}
	return []Var{{r.name(s) + "_OK", strconv.FormatUint(min(attempts, 1), 10)}, {r.name(s) + "_TRY", "0"}}
}

// TrialNamed reports whether variables of Mender's or of RAUC's kind name a
// trial, armed or running. It is a hint for those who do not know which slot
// runs; [Loader.State] decides.
func TrialNamed(vars map[string]string) bool {
	trial := vars[varTrial]
	return vars[varUpgrade] == "1" || trial != "" && trial != noTrial
}

// BootMarker is a [Loader] whose boot loader gives up a slot, a permanent one
// too, unless its starts are reported.
type BootMarker interface {
	Loader
	// MarkBooted reports that the running slot has started. The system calls
	// it once after every start. In a trial it does nothing: that is what
	// Confirm is for. Nothing is written if there are attempts enough.
	MarkBooted(ctx context.Context) error
}
