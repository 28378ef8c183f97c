package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/test/medium"
	"github.com/usb-updater/usb-updater/test/vm"
)

// checker judges what a power cut left on a disk, without starting it: with the
// boot loader's rules and the product's own packages.
type checker struct {
	lay   layout
	dir   string // scratch, in memory
	keep  string // file for the disk of the first violation of a life, "" for none
	known map[key]verdict
}

// key is all that a verdict depends on.
type key struct {
	content
	env [sha256.Size]byte
}

// verdict is what becomes of a device.
type verdict struct {
	Boots      string   // what boots first: "A", "A on trial"
	Runs       string   // release that runs in the end
	Slot       string   // in which it does
	Violations []string // of what must hold
}

// maxBoots is after how many boots a device must be at rest.
const maxBoots = 4

// judge tells what becomes of a device with the image, over which w watches.
func (c *checker) judge(ctx context.Context, w *watch, m *medium.Image) (verdict, error) {
	env, err := c.readEnv(m)
	if err != nil {
		return verdict{}, err
	}
	content, err := w.of(m)
	if err != nil {
		return verdict{}, err
	}
	k := key{content, sha256.Sum256(env)}
	if v, ok := c.known[k]; ok {
		return v, nil
	}
	v, err := c.live(ctx, m, env, content)
	if err == nil {
		c.known[k] = v
	}
	return v, err
}

// sim is a device that is simulated from a disk's content.
type sim struct {
	env   *bootenv.UBoot
	dir   string // Mender's data directory
	whole [2]string
	boots int
}

// live boots the device until it is at rest.
func (c *checker) live(ctx context.Context, m *medium.Image, env []byte, content content) (v verdict, err error) {
	dir, err := os.MkdirTemp(c.dir, "state")
	if err != nil {
		return v, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "env")
	if err := os.WriteFile(path, env, 0o600); err != nil {
		return v, err
	}
	d := &sim{whole: content.whole, dir: filepath.Join(dir, "mender")}
	if d.env, err = envStore(path, c.lay.env[0].size); err != nil {
		return v, err
	}
	if err := c.extract(ctx, m, dir); err != nil {
		text, _, _ := strings.Cut(strings.ReplaceAll(err.Error(), dir, ""), "\n")
		v.Violations = []string{"data partition: " + text}
		return v, nil
	}
	defer func() { // a violation ends the simulation
		if broken, ok := errors.AsType[violation](err); ok {
			v.Violations, err = append(v.Violations, string(broken)), nil
		}
	}()
	for d.boots < maxBoots {
		again, err := d.boot(ctx, &v)
		if err != nil || !again {
			return v, err
		}
	}
	return v, violation(fmt.Sprintf("not at rest after %d boots", maxBoots))
}

// violation is something that must not be.
type violation string

func (v violation) Error() string { return string(v) }

// extract takes Mender's data directory out of the data partition, whose journal is
// replayed before as the kernel does when it mounts it.
func (c *checker) extract(ctx context.Context, m *medium.Image, dir string) error {
	image := filepath.Join(dir, "data")
	if err := m.Save(image, c.lay.data.off, c.lay.data.size); err != nil {
		return err
	}
	// 1: errors were corrected. Journal replay alone is told as 0 or 1.
	out, err := exec.CommandContext(ctx, "e2fsck", "-p", "-E", "journal_only", image).CombinedOutput()
	var status *exec.ExitError
	if err != nil && (!errors.As(err, &status) || status.ExitCode() != 1) {
		return fmt.Errorf("replay the journal: %w: %s", err, out)
	}
	out, err = exec.CommandContext(ctx, "debugfs", "-R", "rdump /mender "+dir, image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("read /mender: %w: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "mender", "device_type")); err != nil {
		return fmt.Errorf("read /mender: %w: %s", err, out)
	}
	return os.Remove(image)
}

var parts = bootenv.Parts{A: partA, B: partB}

// boot is one boot: boot loader, boot check, and if it asks for it the reboot.
func (d *sim) boot(ctx context.Context, v *verdict) (again bool, err error) {
	d.boots++
	slot, err := bootenvtest.Boot(ctx, d.env, parts)
	if err != nil {
		return false, violation("boot environment: " + err.Error())
	}
	loader := bootenv.NewMender(d.env, parts, slot)
	st, err := loader.State(ctx)
	if err != nil {
		return false, violation(err.Error())
	}
	name := d.whole[slot]
	if d.boots == 1 {
		v.Boots = slot.String()
		if st.Phase == bootenv.Trial {
			v.Boots += " on trial"
		}
	}
	if name == "" {
		return false, violation(fmt.Sprintf("slot %s boots and is not whole", slot))
	}
	store, err := state.Open(d.dir)
	if err != nil {
		return false, err
	}
	defer store.Close()
	before, err := store.Load()
	if err != nil {
		return false, violation(err.Error())
	}
	if err := explained(st, before, slot, name); err != nil {
		return false, err
	}
	e := &install.Engine{
		DeviceType: vm.DeviceType, Loader: loader, Store: store, Scripts: noScripts{}, RunningName: name,
		Slots: install.Slots{Booted: slot}, BootID: fmt.Sprintf("boot %d of the simulation", d.boots), Now: time.Now,
	}
	if again, err := bootCheck(ctx, e, name); again || err != nil {
		return again, err
	}
	return false, d.atRest(ctx, e, slot, v)
}

// explained holds boot environment and record against each other: a trial is one
// that a record explains.
func explained(st bootenv.State, r state.Record, slot bootenv.Slot, name string) error {
	if st.Phase == bootenv.Inconsistent {
		return violation("the boot environment does not name the slot that boots")
	}
	if st.Phase != bootenv.Trial {
		return nil
	}
	switch p := r.Pending; {
	case p == nil:
		return violation("a trial that no record explains")
	case p.TargetSlot != slot.String():
		return violation(fmt.Sprintf("a trial of slot %s while slot %s was updated", slot, p.TargetSlot))
	case p.ArtifactName != name:
		return violation(fmt.Sprintf("a trial of %s while the record says %s", name, p.ArtifactName))
	}
	return nil
}

// bootCheck is what the agent does after a boot. A release that is not healthy
// says so in its name.
func bootCheck(ctx context.Context, e *install.Engine, running string) (reboot bool, err error) {
	action, err := e.Recover(ctx)
	switch action {
	case install.ActionDecide:
		if !strings.Contains(running, unhealthy) {
			err = e.Commit(ctx)
			break
		}
		reboot, err = e.Rollback(ctx, "not healthy")
		return reboot, err
	case install.ActionRollback:
		if errors.Is(err, install.ErrRolledBack) {
			err = nil
		}
		return true, err
	case install.ActionFail:
		if errors.Is(err, install.ErrTrialFailed) {
			err = nil
		}
	default:
	}
	if err != nil {
		err = violation(fmt.Sprintf("boot check: %s: %v", action, err))
	}
	return action == install.ActionReboot, err
}

// unhealthy is in the name of a release whose health check fails.
const unhealthy = "unhealthy"

// atRest checks a device at which nothing is left to do.
func (d *sim) atRest(ctx context.Context, e *install.Engine, slot bootenv.Slot, v *verdict) error {
	action, r, err := e.Inspect(ctx)
	if err != nil {
		return violation(err.Error())
	}
	st, err := e.Loader.State(ctx)
	if err != nil {
		return violation(err.Error())
	}
	v.Slot, v.Runs = slot.String(), d.whole[slot]
	// A device that never had an update has no name in its store.
	if action != install.ActionNone || st.Phase != bootenv.Steady || r.Pending != nil || r.ArtifactName != "" && r.ArtifactName != v.Runs {
		return violation(fmt.Sprintf("at rest with action %s, boot environment %s, pending %v, name %q while %q runs",
			action, st.Phase, r.Pending != nil, r.ArtifactName, v.Runs))
	}
	return nil
}

// noScripts: the artifacts have none.
type noScripts struct{}

func (noScripts) Install(int, []artifact.Script) error      { return nil }
func (noScripts) Run(context.Context, string, string) error { return nil }

// tally is what the moments of one life came to.
type tally struct {
	States     int            `json:"states"`  // that were judged
	Unique     int            `json:"unique"`  // different in what matters
	Moments    map[stage]int  `json:"moments"` // by stage
	Outcomes   map[string]int `json:"outcomes"`
	Violations map[string]int `json:"violations,omitempty"`
	First      []example      `json:"examples,omitempty"` // of violations
}

type example struct {
	Index     int         `json:"index"`
	Loss      medium.Loss `json:"loss"`
	Stage     stage       `json:"stage"`
	Violation string      `json:"violation"`
}

// maxExamples bounds what is told of violations.
const maxExamples = 10

// walk judges each moment of a life, with each loss; random ones draws times.
func (c *checker) walk(ctx context.Context, l *life, releases []release, draws int, seed uint64) (tally, error) {
	t := tally{Moments: map[stage]int{}, Outcomes: map[string]int{}, Violations: map[string]int{}}
	marks, err := c.stages(l)
	if err != nil {
		return t, err
	}
	entries := l.trace.Entries()
	own := cloneOwn(l.own)
	w, err := c.newWatch(l.trace.Start, releases, own)
	if err != nil {
		return t, err
	}
	c.known = map[key]verdict{} // of this life: a whole slot depends on its releases
	applied, noted := 0, 0      // entries that are durable; whose writer is known
	err = l.trace.Walk(func(m medium.Moment) error {
		for ; noted < m.Index; noted++ {
			if s := l.touch(&w.own, c.lay, noted, &entries[noted]); s >= 0 {
				if err := w.rescan(m.Durable, s); err != nil {
					return err
				}
			}
		}
		for ; applied < m.Index-len(m.Pending); applied++ {
			if err := w.durable(m.Durable, &entries[applied]); err != nil {
				return err
			}
		}
		if m.Index%thin(m.Pending) != 0 {
			return ctx.Err()
		}
		at := stageAt(marks, m.Index)
		t.Moments[at]++
		for _, loss := range medium.Losses {
			n := draws
			if loss == medium.Kept || loss == medium.Lost {
				n = 1
			}
			if len(m.Pending) == 0 && loss != medium.Kept || len(m.Pending) == 1 && loss == medium.Some {
				continue // the same
			}
			for k := range n {
				rng := rand.New(rand.NewPCG(seed+uint64(k), uint64(m.Index))) //nolint:gosec // repeatable on purpose
				left, err := medium.Lose(m, loss, rng)
				if err != nil {
					return err
				}
				v, err := c.judge(ctx, w, left)
				if err != nil {
					return err
				}
				if len(v.Violations) > 0 && len(t.Violations) == 0 && c.keep != "" {
					if err := left.Save(c.keep, 0, left.Size()); err != nil {
						return err
					}
				}
				t.add(v, example{Index: m.Index, Loss: loss, Stage: at})
			}
		}
		return ctx.Err()
	})
	t.Unique = len(c.known)
	return t, err
}

// thinAbove is how much may be pending for each moment to be judged: 2 MiB.
const thinAbove = 2 << 20

// thin tells how many moments there are for one that is judged: while a slot is
// written, much is pending, and the next moment differs by one request of many.
func thin(pending []medium.Entry) int {
	var sum int64
	for i := range pending {
		sum += int64(len(pending[i].Data))
	}
	return 1 + int(sum/thinAbove)
}

// durable takes note of a write that is on the medium now.
func (w *watch) durable(m *medium.Image, e *medium.Entry) error {
	for n := e.Off / medium.BlockSize; n*medium.BlockSize < e.Off+e.Length; n++ {
		if err := w.block(m, n); err != nil {
			return err
		}
	}
	return nil
}

func (t *tally) add(v verdict, e example) {
	t.States++
	if len(v.Violations) == 0 {
		t.Outcomes[v.Boots+" boots, "+v.Runs+" in the end"]++
	}
	for _, text := range v.Violations {
		t.Violations[text]++
		if e.Violation = text; len(t.First) < maxExamples && t.Violations[text] <= 2 {
			t.First = append(t.First, e)
		}
	}
}
