package install

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/install/state"
)

// TestStopBefore stops at each state, for both kinds of payload, and resumes.
func TestStopBefore(t *testing.T) {
	for _, tt := range []struct {
		verb, before, inState string
		action                Action
		ran                   string // by the resumed run
		name                  string // afterwards
	}{
		{"install", state.ArtifactInstallEnter, state.BeforeArtifactInstallEnter, ActionResume, strings.TrimSpace(enabling), "release-1"},
		{"commit", state.ArtifactCommitEnter, "", ActionDecide, commits, "new"},
		{"commit", state.ArtifactCommitLeave, state.BeforeArtifactCommitLeave, ActionFinish, "ArtifactCommit_Leave Cleanup", "new"},
		{"commit", state.Cleanup, state.Cleanup, ActionFinish, "Cleanup", "new"},
		{"rollback", state.ArtifactRollbackEnter, state.ArtifactRollbackEnter, ActionFail, goesBack + fails, "release-1"},
		{"rollback", state.ArtifactFailureEnter, state.ArtifactFailureEnter, ActionFail, fails, "release-1"},
		{"rollback", state.Cleanup, state.Cleanup, ActionFail, "Cleanup", "release-1"},
	} {
		for _, slotted := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %s slotted %v", tt.verb, tt.before, slotted), func(t *testing.T) {
				testStopBefore(t, tt.verb, tt.before, tt.inState, tt.action, tt.ran, tt.name, slotted)
			})
		}
	}
}

func testStopBefore(t *testing.T, verb, before, inState string, action Action, ran, name string, slotted bool) {
	t.Helper()
	m := newMachine()
	e := m.engine(t)
	stop := func() *Engine {
		e := m.engine(t)
		e.StopBefore = []string{before}
		return e
	}
	if verb == "install" {
		e = stop()
	}
	var err error
	if slotted {
		err = installRun(t, e, newArtifact(t, nil))
	} else {
		_, err = installModule(t, e)
	}
	if verb != "install" {
		if err != nil {
			t.Fatal(err)
		}
		m.powerOn()
		if verb == "commit" {
			err = stop().Commit(t.Context())
		} else {
			_, err = stop().Rollback(t.Context(), "")
		}
	}
	if !errors.Is(err, ErrStopped) {
		t.Fatalf("%s: %v, want ErrStopped", verb, err)
	}
	if p := m.record.Pending; p == nil || p.InState != inState {
		t.Fatalf("pending: %+v, want the state %s", p, inState)
	}
	if verb == "install" && m.env["upgrade_available"] != "0" {
		t.Error("the boot environment is armed")
	}
	got, _, err := m.engine(t).Inspect(t.Context())
	if slotted && verb == "rollback" { // on the trial: the way back is not taken yet
		action = ActionRollback
	}
	if err != nil || got != action {
		t.Errorf("Inspect = %v, %v, want %v", got, err, action)
	}
	m.ranScripts()
	_, err = m.engine(t).Resume(t.Context())
	if failed := verb == "rollback"; (err != nil) != failed || failed && !errors.Is(err, ErrRolledBack) {
		t.Errorf("Resume: %v", err)
	}
	if slotted {
		ran = scriptsOf(ran)
	}
	if got := m.ranScripts(); got != ran {
		t.Errorf("resumed run: %s, want %s", got, ran)
	}
	if name == "new" {
		name = map[bool]string{true: "release-2", false: "mod-2"}[slotted]
	}
	if m.record.ArtifactName != name || (m.record.Pending == nil) == (verb == "install") {
		t.Errorf("record: %+v, want the name %s", m.record, name)
	}
}

// TestResumeAfterReboot: what was stopped before its installation is installed
// in a later boot, and its trial is the boot after that.
func TestResumeAfterReboot(t *testing.T) {
	m := newMachine()
	e := m.engine(t)
	e.StopBefore = []string{state.ArtifactInstallEnter}
	if err := installRun(t, e, newArtifact(t, nil)); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	m.powerOn()
	if got := m.running(t); got != "release-1" {
		t.Fatalf("%s runs", got)
	}
	if action, err := m.engine(t).Recover(t.Context()); action != ActionResume || err != nil {
		t.Errorf("Recover = %v, %v", action, err)
	}
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); !errors.Is(err, ErrInProgress) {
		t.Errorf("install: %v", err)
	}
	if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("commit: %v", err)
	}
	if out, err := m.engine(t).Resume(t.Context()); err != nil || !out.NeedsReboot {
		t.Fatalf("Resume = %+v, %v", out, err)
	}
	if action, _, err := m.engine(t).Inspect(t.Context()); action != ActionReboot || err != nil {
		t.Errorf("Inspect = %v, %v", action, err)
	}
	if got := settle(t, m); got != "release-2" {
		t.Errorf("%s runs", got)
	}
}

func TestResumeNothing(t *testing.T) {
	m := newMachine()
	if _, err := m.engine(t).Resume(t.Context()); !errors.Is(err, ErrNothingPending) || m.writes != 0 {
		t.Errorf("Resume: %v, %d writes", err, m.writes)
	}
	// Not rebooted yet: nothing can be committed.
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.engine(t).Resume(t.Context()); !errors.Is(err, ErrNotRebooted) {
		t.Errorf("Resume: %v", err)
	}
}

// TestResumeOtherClient: mender-update 5 has brought the payload and was stopped
// before its installation. Its record names no slot.
func TestResumeOtherClient(t *testing.T) {
	for _, slotted := range []bool{true, false} {
		for _, verb := range []string{"resume", "rollback"} {
			m := newMachine()
			e := m.engine(t)
			e.StopBefore = []string{state.ArtifactInstallEnter}
			var err error
			if slotted {
				err = installRun(t, e, newArtifact(t, nil))
			} else {
				_, err = installModule(t, e)
			}
			if !errors.Is(err, ErrStopped) {
				t.Fatal(err)
			}
			p := *m.record.Pending
			p.OriginalSlot, p.TargetSlot, p.BootID, p.ManifestDigest = "", "", "", ""
			m.record.Pending, m.record.Attempt = &p, nil
			m.writes = 0
			m.ranScripts()
			if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrNotInstalled) {
				t.Errorf("slotted %v: Commit: %v, want ErrNotInstalled", slotted, err)
			}
			if action, err := m.engine(t).Recover(t.Context()); action != ActionResume || err != nil {
				t.Errorf("slotted %v: Recover = %v, %v", slotted, action, err)
			}
			if ran := m.ranScripts(); m.writes != 0 || ran != "" {
				t.Errorf("slotted %v: %d writes, ran %q", slotted, m.writes, ran)
			}
			if verb == "rollback" {
				if _, err := m.engine(t).Rollback(t.Context(), ""); err != nil || m.record.Pending != nil || m.record.ArtifactName != "release-1" {
					t.Errorf("slotted %v: Rollback: %v, record %+v", slotted, err, m.record)
				}
				continue
			}
			if _, err := m.engine(t).Resume(t.Context()); err != nil {
				t.Fatalf("slotted %v: Resume: %v", slotted, err)
			}
			if slotted && m.record.Pending.TargetSlot != "B" {
				t.Errorf("the record does not name the slot that was armed: %+v", m.record.Pending)
			}
			m.powerOn()
			if err := m.engine(t).Commit(t.Context()); err != nil || m.record.Pending != nil || m.record.ArtifactName == "release-1" {
				t.Errorf("slotted %v: Commit: %v, record %+v", slotted, err, m.record)
			}
		}
	}
}
