package bootenv

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/usb-updater/usb-updater/internal/runner"
)

// CustomConfig names the program that stands for a boot loader.
type CustomConfig struct {
	Program string        // absolute path
	Timeout time.Duration // of each run; 0 is [DefaultProgramTimeout]
	Dir     string        // working directory; "" is "/"
	Booted  Slot          // the slot that runs, as the mounted root says
}

// Custom is the [Loader] of a boot loader that only the device's maker knows:
// one program with four verbs.
//
//	state      prints where the device is, see [Custom.State]; changes nothing
//	arm A|B    makes the next boot a trial of the slot
//	confirm    makes the running trial permanent
//	revert     ends an armed or running trial: the permanent slot boots next
//
// Exit status 0 means done, 75 that another program holds the boot loader's
// data ([ErrBusy]; source: sysexits.h, EX_TEMPFAIL); any other is a failure,
// told with the last line of the program's error output. After each change the
// state is asked for again and must be the one that was wanted.
//
// The promises of [Loader] are the program's to keep: each verb changes all or
// nothing, is on the medium when it ends, and a trial that is not confirmed
// ends with the next boot (source: docs/bootloaders.md).
type Custom struct {
	program program
	booted  Slot
}

// OpenCustom returns the loader. Nothing is run.
func OpenCustom(cfg CustomConfig) (*Custom, error) {
	path, err := FindTool(nil, cfg.Program)
	if err != nil {
		return nil, fmt.Errorf("configure boot loader: %w", err)
	}
	return &Custom{
		program: program{path: path, dir: cfg.Dir, timeout: cmp.Or(cfg.Timeout, DefaultProgramTimeout)},
		booted:  cfg.Booted,
	}, nil
}

// Caps implements [Loader].
func (c *Custom) Caps() Caps { return Caps{Name: "custom", AutoRevert: true} }

// Bounds of the program's answer.
const (
	maxAnswer  = 4 << 10 // bytes
	maxRemarks = 16
	maxRemark  = 200 // bytes
	exitBusy   = 75
)

// State implements [Loader]. The program prints one JSON object:
//
//	booted    "A" or "B": the slot that runs, by the program's own lights
//	phase     "steady", "armed", "trial" or "inconsistent", see [Phase]
//	degraded  optional: a list of at most 16 strings of at most 200 bytes
//
// Everything else follows from these. Any other member, a member that comes
// twice, or text behind the object is [ErrProgram]; a slot that is not the one
// that runs is [ErrMismatch].
func (c *Custom) State(ctx context.Context) (State, error) {
	res, err := c.run(ctx, "state")
	if err != nil {
		return State{}, fmt.Errorf("read boot loader state: %w", err)
	}
	a, err := decodeAnswer([]byte(res.Stdout))
	if err != nil {
		return State{}, fmt.Errorf("read boot loader state: run %s state: %w: %w", c.program.path, ErrProgram, err)
	}
	if a.booted != c.booted {
		return State{}, fmt.Errorf("read boot loader state: %s says that slot %s runs, slot %s does: %w", c.program.path, a.booted, c.booted, ErrMismatch)
	}
	s := State{Booted: a.booted, Default: a.booted, Next: a.booted, Phase: a.phase, Degraded: a.degraded}
	switch a.phase {
	case Armed:
		s.Next = a.booted.Other()
	case Trial, Inconsistent:
		s.Default, s.Next = a.booted.Other(), a.booted.Other()
	default: // Steady
	}
	return s, nil
}

// answer is what the program prints.
type answer struct {
	booted   Slot
	phase    Phase
	degraded []string
}

// decodeAnswer reads the object strictly: a misspelled or repeated member must
// not pass for something else.
func decodeAnswer(b []byte) (answer, error) {
	var a answer
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return a, fmt.Errorf("it prints %s, not a JSON object", quote(string(b)))
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return a, fmt.Errorf("JSON: %w", err)
		}
		name, ok := t.(string)
		if !ok || seen[name] {
			return a, fmt.Errorf("JSON: member %s comes twice", quote(name))
		}
		seen[name] = true
		if err := a.decode(dec, name); err != nil {
			return a, fmt.Errorf("JSON: member %s: %w", quote(name), err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return a, fmt.Errorf("JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return a, errors.New("JSON: something follows the object")
	}
	if !seen["booted"] || !seen["phase"] {
		return a, errors.New("JSON: the members booted and phase are required")
	}
	return a, nil
}

func (a *answer) decode(dec *json.Decoder, name string) error {
	switch name {
	case "booted":
		return decodeWord(dec, &a.booted, A, B)
	case "phase":
		return decodeWord(dec, &a.phase, Steady, Armed, Trial, Inconsistent)
	case "degraded":
		if err := dec.Decode(&a.degraded); err != nil {
			return err
		}
		if len(a.degraded) > maxRemarks || slices.ContainsFunc(a.degraded, func(s string) bool { return len(s) > maxRemark }) {
			return fmt.Errorf("more than %d strings, or one longer than %d bytes", maxRemarks, maxRemark)
		}
		for i, s := range a.degraded {
			a.degraded[i] = runner.Printable(s)
		}
		return nil
	default:
		return errors.New("not a member of the answer")
	}
}

// decodeWord reads a string that is the name of one of the values.
func decodeWord[T fmt.Stringer](dec *json.Decoder, into *T, values ...T) error {
	var word string
	if err := dec.Decode(&word); err != nil {
		return err
	}
	for _, v := range values {
		if word == v.String() {
			*into = v
			return nil
		}
	}
	return fmt.Errorf("%s is none of %v", quote(word), values)
}

// CheckArm implements [Loader]. It cannot know whether the program's medium
// can be written.
func (c *Custom) CheckArm(ctx context.Context, s Slot) error {
	_, err := c.checkArm(ctx, s)
	return err
}

func (c *Custom) checkArm(ctx context.Context, s Slot) (State, error) {
	st, err := c.State(ctx)
	if err != nil {
		return st, err
	}
	return st, armable(st, s)
}

// BeforeWrite implements [Loader].
func (c *Custom) BeforeWrite(ctx context.Context, s Slot) error {
	st, err := c.checkArm(ctx, s)
	if err != nil || st.Phase != Armed {
		return err
	}
	return c.change(ctx, Steady, "revert")
}

// Arm implements [Loader].
func (c *Custom) Arm(ctx context.Context, s Slot) error {
	st, err := c.checkArm(ctx, s)
	if err != nil || st.Phase == Armed {
		return err
	}
	return c.change(ctx, Armed, "arm", s.String())
}

// CheckConfirm implements [Loader]. It cannot know whether the program's
// medium can be written.
func (c *Custom) CheckConfirm(ctx context.Context) error {
	st, err := c.State(ctx)
	if err != nil {
		return err
	}
	return confirmable(st)
}

// Confirm implements [Loader].
func (c *Custom) Confirm(ctx context.Context) error {
	if err := c.CheckConfirm(ctx); err != nil {
		return err
	}
	return c.change(ctx, Steady, "confirm")
}

// Revert implements [Loader].
func (c *Custom) Revert(ctx context.Context) error {
	st, err := c.State(ctx)
	if err != nil {
		return err
	}
	switch st.Phase {
	case Armed:
		return c.change(ctx, Steady, "revert")
	case Trial:
		return c.change(ctx, Inconsistent, "revert")
	default:
		return nil
	}
}

// change runs a verb and asks what came of it.
func (c *Custom) change(ctx context.Context, want Phase, args ...string) error {
	if _, err := c.run(ctx, args...); err != nil {
		return fmt.Errorf("change boot loader state: %w", err)
	}
	st, err := c.State(ctx)
	if err != nil {
		return err
	}
	if st.Phase != want {
		return fmt.Errorf("change boot loader state: after %s the phase is %s, want %s: %w", args[0], st.Phase, want, ErrVerify)
	}
	return nil
}

func (c *Custom) run(ctx context.Context, args ...string) (runner.Result, error) {
	res, err := c.program.run(ctx, maxAnswer, "", args...)
	if err != nil || res.OK() {
		return res, err
	}
	if res.ExitCode == exitBusy {
		return res, c.program.failure(res, ErrBusy)
	}
	return res, c.program.failure(res, ErrProgram)
}
