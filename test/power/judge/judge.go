// Package judge tells what becomes of a device after a power cut, without
// starting it: with the boot loader's rules and the product's own packages.
package judge

import (
	"context"
	"errors"
	"fmt"
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
)

// Disk is what the power cut left.
type Disk struct {
	Env   []byte                  // both copies of the boot environment, one behind the other
	Data  func(path string) error // writes an image of the data partition to a new file
	Whole [2]string               // name of the release that is whole in slot A and B, "" if none is
}

// Verdict is what becomes of a device.
type Verdict struct {
	Boots      string   // what boots first: "A", "A on trial"
	Runs       string   // release that runs in the end
	Slot       string   // in which it does
	Violations []string // of what must hold
}

// Violation is something that must not be.
type Violation string

func (v Violation) Error() string { return string(v) }

// MaxBoots is after how many boots a device must be at rest.
const MaxBoots = 4

// Unhealthy is in the name of a release whose health check fails.
const Unhealthy = "unhealthy"

// Parts are the partitions of the virtual device's slots.
var Parts = bootenv.Parts{A: 2, B: 3}

// OpenEnv returns the boot environment of a file with its two copies, each of
// size bytes.
func OpenEnv(path string, size int64) (*bootenv.UBoot, error) {
	return bootenv.OpenUBoot(bootenv.UBootConfig{
		Copies: []bootenv.Copy{{Path: path, Offset: 0, Size: int(size)}, {Path: path, Offset: size, Size: int(size)}},
		Locks:  []string{path + ".lock"},
	})
}

// Live boots the device until it is at rest. It works in a new directory below
// scratch and removes it.
func Live(ctx context.Context, scratch string, d Disk) (v Verdict, err error) {
	dir, err := os.MkdirTemp(scratch, "state")
	if err != nil {
		return v, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "env")
	if err := os.WriteFile(path, d.Env, 0o600); err != nil {
		return v, err
	}
	s := &sim{whole: d.Whole, dir: filepath.Join(dir, "mender")}
	if s.env, err = OpenEnv(path, int64(len(d.Env)/2)); err != nil {
		return v, err
	}
	image := filepath.Join(dir, "data")
	if err := d.Data(image); err != nil {
		return v, err
	}
	if err := extract(ctx, image, dir); err != nil {
		text, _, _ := strings.Cut(strings.ReplaceAll(err.Error(), dir, ""), "\n")
		v.Violations = []string{"data partition: " + text}
		return v, nil
	}
	defer func() { // a violation ends the simulation
		if broken, ok := errors.AsType[Violation](err); ok {
			v.Violations, err = append(v.Violations, string(broken)), nil
		}
	}()
	for s.boots < MaxBoots {
		again, err := s.boot(ctx, &v)
		if err != nil || !again {
			return v, err
		}
	}
	return v, Violation(fmt.Sprintf("not at rest after %d boots", MaxBoots))
}

// extract takes Mender's data directory out of the image of a data partition,
// which it removes. The journal is replayed before as the kernel does when it
// mounts it.
func extract(ctx context.Context, image, dir string) error {
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

// sim is a device that is simulated from a disk's content.
type sim struct {
	env   *bootenv.UBoot
	dir   string // Mender's data directory
	whole [2]string
	boots int
}

// boot is one boot: boot loader, boot check, and if it asks for it the reboot.
func (d *sim) boot(ctx context.Context, v *Verdict) (again bool, err error) {
	d.boots++
	slot, err := bootenvtest.Boot(ctx, d.env, Parts)
	if err != nil {
		return false, Violation("boot environment: " + err.Error())
	}
	loader := bootenv.NewMender(d.env, Parts, slot)
	st, err := loader.State(ctx)
	if err != nil {
		return false, Violation(err.Error())
	}
	name := d.whole[slot]
	if d.boots == 1 {
		v.Boots = slot.String()
		if st.Phase == bootenv.Trial {
			v.Boots += " on trial"
		}
	}
	if name == "" {
		return false, Violation(fmt.Sprintf("slot %s boots and is not whole", slot))
	}
	store, err := state.Open(d.dir)
	if err != nil {
		return false, err
	}
	defer store.Close()
	before, err := store.Load()
	if err != nil {
		return false, Violation(err.Error())
	}
	if err := explained(st, before, slot, name); err != nil {
		return false, err
	}
	e := &install.Engine{
		Loader: loader, Store: store, Scripts: noScripts{}, RunningName: name,
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
		return Violation("the boot environment does not name the slot that boots")
	}
	if st.Phase != bootenv.Trial {
		return nil
	}
	switch p := r.Pending; {
	case p == nil:
		return Violation("a trial that no record explains")
	case p.TargetSlot != slot.String():
		return Violation(fmt.Sprintf("a trial of slot %s while slot %s was updated", slot, p.TargetSlot))
	case p.ArtifactName != name:
		return Violation(fmt.Sprintf("a trial of %s while the record says %s", name, p.ArtifactName))
	}
	return nil
}

// bootCheck is what the agent does after a boot. A release that is not healthy
// says so in its name.
func bootCheck(ctx context.Context, e *install.Engine, running string) (reboot bool, err error) {
	action, err := e.Recover(ctx)
	switch action {
	case install.ActionDecide:
		if !strings.Contains(running, Unhealthy) {
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
		if errors.Is(err, install.ErrTrialFailed) || errors.Is(err, install.ErrInterrupted) {
			err = nil
		}
	default:
	}
	if err != nil {
		err = Violation(fmt.Sprintf("boot check: %s: %v", action, err))
	}
	return action == install.ActionReboot, err
}

// atRest checks a device at which nothing is left to do.
func (d *sim) atRest(ctx context.Context, e *install.Engine, slot bootenv.Slot, v *Verdict) error {
	action, r, err := e.Inspect(ctx)
	if err != nil {
		return Violation(err.Error())
	}
	st, err := e.Loader.State(ctx)
	if err != nil {
		return Violation(err.Error())
	}
	v.Slot, v.Runs = slot.String(), d.whole[slot]
	// A device that never had an update has no name in its store.
	if action != install.ActionNone || st.Phase != bootenv.Steady || r.Pending != nil || r.ArtifactName != "" && r.ArtifactName != v.Runs {
		return Violation(fmt.Sprintf("at rest with action %s, boot environment %s, pending %v, name %q while %q runs",
			action, st.Phase, r.Pending != nil, r.ArtifactName, v.Runs))
	}
	return nil
}

// noScripts: the artifacts have none.
type noScripts struct{}

func (noScripts) Install(int, []artifact.Script) error      { return nil }
func (noScripts) Run(context.Context, string, string) error { return nil }
