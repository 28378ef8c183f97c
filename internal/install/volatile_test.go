package install

import (
	"context"
	"errors"
	"testing"

	"github.com/usb-updater/usb-updater/internal/bootenv"
)

// newTrybootMachine is a machine with a volatile boot loader.
func newTrybootMachine() *machine {
	m := newMachine()
	m.tryboot = true
	m.env = map[string]string{"all": "A", "try": "B"}
	m.boots = 0
	m.powerOn()
	return m
}

// startTryboot is the firmware: it tries once, if the reboot says so.
func (m *machine) startTryboot() {
	m.trying = m.argument == "try"
	m.argument = ""
	name := m.env["all"]
	if m.trying {
		name = m.env["try"]
	}
	m.booted = bootenv.A
	if name == "B" {
		m.booted = bootenv.B
	}
}

// trybootLoader is the loader of that machine: what arms is the reboot.
type trybootLoader struct{ m *machine }

func (l trybootLoader) Caps() bootenv.Caps {
	return bootenv.Caps{Name: "tryboot", AutoRevert: true, Volatile: true, RebootArgument: "try"}
}

func (l trybootLoader) State(context.Context) (bootenv.State, error) {
	s := bootenv.State{Booted: l.m.booted, Default: bootenv.A}
	if l.m.env["all"] == "B" {
		s.Default = bootenv.B
	}
	s.Next = s.Default
	switch {
	case s.Default == s.Booted:
	case l.m.trying && l.m.env["try"] == s.Booted.String():
		s.Phase = bootenv.Trial
	default:
		s.Phase = bootenv.Inconsistent
	}
	return s, nil
}

func (l trybootLoader) CheckArm(ctx context.Context, s bootenv.Slot) error {
	st, err := l.State(ctx)
	switch {
	case err != nil:
		return err
	case s == st.Booted:
		return bootenv.ErrBooted
	case st.Phase == bootenv.Trial:
		return bootenv.ErrTrial
	case st.Phase != bootenv.Steady:
		return bootenv.ErrMismatch
	}
	return nil
}

func (l trybootLoader) BeforeWrite(ctx context.Context, s bootenv.Slot) error {
	return l.CheckArm(ctx, s)
}

func (l trybootLoader) Arm(ctx context.Context, s bootenv.Slot) error {
	if err := l.CheckArm(ctx, s); err != nil {
		return err
	}
	return l.set(s.Other(), s)
}

func (l trybootLoader) CheckConfirm(ctx context.Context) error {
	if st, err := l.State(ctx); err != nil || st.Phase != bootenv.Trial {
		return errors.Join(err, bootenv.ErrNoTrial)
	}
	return nil
}

func (l trybootLoader) Confirm(ctx context.Context) error {
	if err := l.CheckConfirm(ctx); err != nil {
		return err
	}
	return l.set(l.m.booted, l.m.booted.Other())
}

func (l trybootLoader) Revert(ctx context.Context) error {
	st, err := l.State(ctx)
	if err != nil || st.Phase != bootenv.Trial {
		return err
	}
	return l.set(st.Default, st.Default)
}

func (l trybootLoader) set(all, try bootenv.Slot) error {
	if l.m.env["all"] == all.String() && l.m.env["try"] == try.String() {
		return nil
	}
	if l.m.failEnv != nil {
		return l.m.failEnv
	}
	if err := l.m.write("env"); err != nil {
		return err
	}
	l.m.env["all"], l.m.env["try"] = all.String(), try.String()
	return nil
}

// arm installs release-2 on a new machine, up to the reboot.
func armTryboot(t *testing.T) *machine {
	t.Helper()
	m := newTrybootMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.ranScripts()
	return m
}

// wantAction fails the test unless the state calls for the action.
func wantAction(t *testing.T, m *machine, want Action) {
	t.Helper()
	got, _, err := m.engine(t).Inspect(t.Context())
	if err != nil || got != want {
		t.Fatalf("Inspect = %v, %v, want %v", got, err, want)
	}
}

func TestVolatileCommit(t *testing.T) {
	m := armTryboot(t)
	wantAction(t, m, ActionReboot)
	if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrNotRebooted) {
		t.Errorf("Commit before the reboot = %v, want ErrNotRebooted", err)
	}
	if err := m.engine(t).Ready(t.Context()); !errors.Is(err, ErrInProgress) {
		t.Errorf("Ready before the reboot = %v, want ErrInProgress", err)
	}
	m.argument = m.engine(t).RebootArgument()
	m.powerOn()
	wantAction(t, m, ActionDecide)
	if err := m.engine(t).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantAction(t, m, ActionNone)
	m.powerOn()
	wantAction(t, m, ActionNone)
	if got := m.running(t); got != "release-2" || m.record.ArtifactName != "release-2" {
		t.Errorf("%q runs, the record says %q, want release-2", got, m.record.ArtifactName)
	}
}

// TestVolatileFallsBack: a reboot that does not ask for the trial, or a trial
// that is not committed, leads to the old slot in another boot: that is a
// failure and not a reboot to come.
func TestVolatileFallsBack(t *testing.T) {
	for name, argument := range map[string]string{"plain reboot": "", "trial, then power cut": "try"} {
		m := armTryboot(t)
		if m.argument = argument; argument != "" {
			m.powerOn()
			wantAction(t, m, ActionDecide)
		}
		m.powerOn()
		wantAction(t, m, ActionFail)
		if action, err := m.engine(t).Recover(t.Context()); action != ActionFail || !errors.Is(err, ErrTrialFailed) {
			t.Errorf("%s: Recover = %v, %v, want ErrTrialFailed", name, action, err)
		}
		if len(m.record.Failed) != 1 || m.record.Pending != nil {
			t.Errorf("%s: failed %v, pending %v, want one failure and nothing pending", name, m.record.Failed, m.record.Pending)
		}
		wantAction(t, m, ActionNone)
	}
}

// TestVolatileRollback: in the boot that armed, and in the trial. A trial that
// was rolled back must not be committed by whoever looks next.
func TestVolatileRollback(t *testing.T) {
	m := armTryboot(t)
	if reboot, err := m.engine(t).Rollback(t.Context(), "by hand"); err != nil || reboot {
		t.Errorf("Rollback before the reboot = %v, %v, want no reboot", reboot, err)
	}
	wantAction(t, m, ActionNone)

	m = armTryboot(t)
	m.argument = "try"
	m.powerOn()
	if reboot, err := m.engine(t).Rollback(t.Context(), "unhealthy"); err != nil || !reboot {
		t.Errorf("Rollback in the trial = %v, %v, want a reboot", reboot, err)
	}
	wantAction(t, m, ActionRefuse)
	if err := m.engine(t).Commit(t.Context()); err == nil {
		t.Error("a trial that was rolled back is committed")
	}
	m.powerOn()
	wantAction(t, m, ActionNone)
	if got := m.running(t); got != "release-1" {
		t.Errorf("%q runs, want release-1", got)
	}
	installAgain(t, m)
}

func TestVolatileNeedsBootID(t *testing.T) {
	m := newTrybootMachine()
	e := m.engine(t)
	e.BootID = ""
	if _, err := e.Plan(t.Context(), newArtifact(t, nil)); !errors.Is(err, ErrNoBootID) {
		t.Errorf("Plan = %v, want ErrNoBootID", err)
	}
}

// TestPowerCutVolatile is TestPowerCut with a volatile boot loader.
func TestPowerCutVolatile(t *testing.T) { cutEverywhere(t, newTrybootMachine) }
