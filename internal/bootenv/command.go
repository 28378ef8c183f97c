package bootenv

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usb-updater/usb-updater/internal/runner"
)

// CommandConfig names a pair of programs that read and write a boot
// environment.
type CommandConfig struct {
	// Getter prints variables, as fw_printenv does: for each name among its
	// arguments, or for all without arguments, one line "name=value".
	Getter string
	// Setter reads "name=value" lines from its standard input when called with
	// "-s -", as fw_setenv does, and stores all of them in one transaction. A
	// line without a value removes the variable.
	Setter string
	// Timeout bounds each run; 0 is [DefaultProgramTimeout].
	Timeout time.Duration
	// Dir is the working directory of both; "" is "/".
	Dir string
}

// Command is the [Store] of an environment that only other programs can read
// and write: raw flash, or a boot loader with tools of its own (sources:
// U-Boot, tools/env; libubootenv; grub-mender-grubenv; Mender client 3,
// BootUtilitiesSetActivePart and BootUtilitiesGetNextActivePart).
//
// It promises what the tools promise and checks what can be checked: every
// update is one run of the setter, whose exit status is not trusted: all
// variables are read back. Whether a power cut leaves all old or all new
// values is up to the tools, so Health.Atomic is false. Locks are the tools'
// own, too.
type Command struct {
	getter, setter program
}

// OpenCommand returns the store. Both programs must be absolute paths, see
// [FindTool]; nothing is run.
func OpenCommand(cfg CommandConfig) (*Command, error) {
	c := &Command{}
	for _, tool := range []struct {
		to   *program
		path string
	}{{&c.getter, cfg.Getter}, {&c.setter, cfg.Setter}} {
		path, err := FindTool(nil, tool.path)
		if err != nil {
			return nil, fmt.Errorf("configure boot environment: %w", err)
		}
		*tool.to = program{path: path, dir: cfg.Dir, timeout: cmp.Or(cfg.Timeout, DefaultProgramTimeout)}
	}
	return c, nil
}

// Get implements [Store]. An answer that the getter itself calls a default, as
// it does when no copy is good, is [ErrCorrupt].
func (c *Command) Get(ctx context.Context, names ...string) (map[string]string, error) {
	vars, _, err := c.get(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("read boot environment: %w", err)
	}
	return vars, nil
}

// get also tells how many variables there are, -1 if unknown.
func (c *Command) get(ctx context.Context, names []string) (map[string]string, int, error) {
	if len(names) > 0 {
		res, err := c.read(ctx, names)
		if err != nil {
			return nil, 0, err
		}
		if res.OK() {
			vars, err := c.parse(res.Stdout, names, true)
			return vars, -1, err
		}
		// Some tools fail if one of the names is not set. Their full list tells
		// that from a tool that cannot read.
	}
	res, err := c.read(ctx, nil)
	if err != nil {
		return nil, 0, err
	}
	if !res.OK() {
		return nil, 0, c.getter.failure(res, ErrProgram)
	}
	vars, err := c.parse(res.Stdout, names, false)
	return vars, strings.Count(res.Stdout, "\n"), err
}

// read runs the getter. Its answer from a built-in or a default environment is
// not what the device will boot with next.
func (c *Command) read(ctx context.Context, names []string) (runner.Result, error) {
	res, err := c.getter.run(ctx, MaxEnvSize, "", names...)
	if err != nil {
		return res, err
	}
	if line := admitsDefault(res.Stderr); line != "" {
		return res, fmt.Errorf("run %s: %w: it says %s", c.getter.path, ErrCorrupt, quote(line))
	}
	return res, nil
}

// admitsDefault returns the line in which a tool says that no copy is good
// (sources: U-Boot, tools/env/fw_env.c; libubootenv, fw_printenv.c).
func admitsDefault(stderr string) string {
	for line := range strings.Lines(runner.Printable(stderr)) {
		for _, words := range []string{"bad crc", "default environment", "using default"} {
			if strings.Contains(strings.ToLower(line), words) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}

// parse reads "name=value" lines and returns the variables of these names, or
// all. In a full list a value may go on in the next line, which then looks
// like anything; so there a line that is no variable is skipped, but a name
// that comes twice is never taken.
func (c *Command) parse(out string, names []string, strict bool) (map[string]string, error) {
	vars := map[string]string{}
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			if strict {
				return nil, fmt.Errorf("run %s: %w: it prints %s, not name=value", c.getter.path, ErrProgram, quote(line))
			}
			continue
		}
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		if _, twice := vars[name]; twice && len(names) > 0 {
			return nil, fmt.Errorf("run %s: %w: it prints %s twice", c.getter.path, ErrCorrupt, quote(name))
		}
		vars[name] = value
	}
	maps.DeleteFunc(vars, func(_, value string) bool { return value == "" })
	return vars, nil
}

// Update implements [Store]. All pairs go to the setter in one run, also those
// that do not change: some tools keep two files that only full sets make
// equal.
//
// A power cut while the setter runs leaves what the setter leaves. Before and
// after it nothing is written: the old or the new values are in force.
func (c *Command) Update(ctx context.Context, pairs ...Var) error {
	if err := c.update(ctx, pairs); err != nil {
		return fmt.Errorf("write boot environment: %w", err)
	}
	return nil
}

func (c *Command) update(ctx context.Context, pairs []Var) error {
	if err := checkScript(pairs); err != nil {
		return err
	}
	want := wanted(pairs)
	names := slices.Sorted(maps.Keys(want))
	old, _, err := c.get(ctx, names)
	if err != nil {
		return err
	}
	if differs(want, old) == "" {
		return nil
	}
	now, err := c.set(ctx, pairs, names, "=")
	if err != nil {
		return err
	}
	// Tools before U-Boot 2018.03 want a blank between name and value; to them
	// "name=value" is the name of a variable to remove, which is not there
	// (source: U-Boot, tools/env/fw_env.c, fw_parse_script). If anything at all
	// changed, the tool has understood, and the rest is refused.
	if differs(want, now) != "" && maps.Equal(now, old) {
		if now, err = c.set(ctx, pairs, names, " "); err != nil {
			return err
		}
	}
	if name := differs(want, now); name != "" {
		return fmt.Errorf("%w: %s is %s, want %s", ErrVerify, quote(name), quote(now[name]), quote(want[name]))
	}
	return nil
}

// set runs the setter once and reads the names back.
func (c *Command) set(ctx context.Context, pairs []Var, names []string, separator string) (map[string]string, error) {
	res, err := c.setter.run(ctx, runner.DefaultCapture, script(pairs, separator), "-s", "-")
	if err != nil {
		return nil, err
	}
	if !res.OK() {
		return nil, c.setter.failure(res, ErrProgram)
	}
	now, _, err := c.get(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	return now, nil
}

// Check implements [Store]. The programs do not tell how much space there is.
func (c *Command) Check(ctx context.Context, pairs ...Var) (Health, error) {
	h := Health{Active: -1, Free: -1, Copies: []CopyHealth{{Place: c.getter.path}}}
	_, n, err := c.get(ctx, nil)
	if err != nil && ctx.Err() == nil {
		// A getter that wants names: any will do to see whether it can read.
		_, n, err = c.get(ctx, []string{varUpgrade})
	}
	if err != nil {
		err = fmt.Errorf("read boot environment: %w", err)
		h.Copies[0].Err = err
		return h, err
	}
	h.Active, h.Vars = 0, n
	if err := checkScript(pairs); err != nil {
		return h, fmt.Errorf("write boot environment: %w", err)
	}
	return h, nil
}

// checkScript refuses what cannot be handed to a setter.
func checkScript(pairs []Var) error {
	for _, p := range pairs {
		if err := p.check(); err != nil {
			return err
		}
		if strings.ContainsAny(p.Name, " \t") {
			return fmt.Errorf("variable %s: not a valid name", quote(p.Name))
		}
	}
	if n := len(script(pairs, "=")); n > runner.MaxStdin {
		return fmt.Errorf("%w: %d bytes for the setter, it gets at most %d", ErrNoSpace, n, runner.MaxStdin)
	}
	return nil
}

// script is the input of a setter.
func script(pairs []Var, separator string) string {
	var b strings.Builder
	for _, p := range pairs {
		b.WriteString(p.Name + separator + p.Value + "\n")
	}
	return b.String()
}

// wanted returns the values after an update; an empty one means not set.
func wanted(pairs []Var) map[string]string {
	want := make(map[string]string, len(pairs))
	for _, p := range pairs {
		want[p.Name] = p.Value
	}
	return want
}

// differs returns a name whose value is not the wanted one, "" if there is
// none.
func differs(want, have map[string]string) string {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have[name] != want[name] {
			return name
		}
	}
	return ""
}
