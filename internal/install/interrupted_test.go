package install

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/install/state"
)

// scriptsOf returns the state scripts among what ran, without calls of a module.
func scriptsOf(ran string) string {
	words := strings.Fields(ran)
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return !strings.Contains(w, "_") }), " ")
}

// interruptedIn returns a machine whose old slot runs, with an update of a slot
// that was cut short in a state.
func interruptedIn(t *testing.T, inState string, armed bool) *machine {
	t.Helper()
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	if inState != "" {
		p := *m.record.Pending
		p.Version, p.InState = 2, inState
		p.Failed = undoing(inState)
		p.RolledBack = inState == state.ArtifactFailureEnter || inState == state.Cleanup
		m.record.Pending = &p
	}
	if !armed {
		m.env["mender_boot_part"], m.env["mender_boot_part_hex"], m.env["upgrade_available"] = "2", "2", "0"
	}
	m.ranScripts()
	m.writes = 0
	return m
}

// TestInterrupted: on the old slot, an update is closed by what its state calls
// for: an installation and what follows it are rolled back, a rollback is
// repeated, and a trial that the boot loader has ended only fails.
func TestInterrupted(t *testing.T) {
	wholeWay := scriptsOf(goesBack + fails)
	for _, tt := range []struct {
		inState string
		ran     string
		why     error
	}{
		{state.ArtifactInstallEnter, wholeWay, ErrInterrupted},
		{"", scriptsOf(fails), ErrTrialFailed},
		{state.ArtifactCommitEnter, wholeWay, ErrTrialFailed},
		{state.ArtifactRollbackEnter, wholeWay, ErrInterrupted},
		{state.ArtifactFailureEnter, scriptsOf(fails), ErrInterrupted},
		{state.Cleanup, "", ErrInterrupted},
	} {
		for _, verb := range []string{"resume", "rollback", "recover"} {
			for _, armed := range []bool{false, true} {
				if armed && errors.Is(tt.why, ErrTrialFailed) {
					continue // it waits for its reboot, or cannot be
				}
				t.Run(fmt.Sprintf("%s %s armed %v", tt.inState, verb, armed), func(t *testing.T) {
					m := interruptedIn(t, tt.inState, armed)
					var err error
					switch verb {
					case "resume":
						_, err = m.engine(t).Resume(t.Context())
					case "rollback":
						var reboot bool
						if reboot, err = m.engine(t).Rollback(t.Context(), ""); reboot {
							t.Error("a reboot is called for, on the old slot")
						}
					default:
						_, err = m.engine(t).Recover(t.Context())
					}
					switch {
					case verb == "rollback" && err != nil:
						t.Errorf("error %v", err)
					case verb != "rollback" && (!errors.Is(err, tt.why) || errors.Is(err, ErrTrialFailed) != errors.Is(tt.why, ErrTrialFailed)):
						t.Errorf("error %v, want %v", err, tt.why)
					}
					if got := m.ranScripts(); got != tt.ran {
						t.Errorf("ran %q, want %q", got, tt.ran)
					}
					if m.record.Pending != nil || m.record.ArtifactName != "release-1" || m.env["upgrade_available"] != "0" || m.env["mender_boot_part"] != "2" {
						t.Errorf("record %+v, environment %v", m.record, m.env)
					}
					if (len(m.record.Failed) == 1) != errors.Is(tt.why, ErrTrialFailed) {
						t.Errorf("failed: %v: what had no trial may be tried again", m.record.Failed)
					}
				})
			}
		}
	}
}

// TestInterruptedCommit: what cannot be committed is left as it is.
func TestInterruptedCommit(t *testing.T) {
	for _, inState := range []string{state.ArtifactInstallEnter, state.ArtifactRollbackEnter, state.ArtifactFailureEnter, state.Cleanup} {
		for _, armed := range []bool{false, true} {
			m := interruptedIn(t, inState, armed)
			if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrUnfinished) {
				t.Errorf("%s: Commit: %v, want ErrUnfinished", inState, err)
			}
			if ran := m.ranScripts(); m.writes != 0 || ran != "" || m.record.Pending == nil {
				t.Errorf("%s: %d writes, ran %q, pending %+v", inState, m.writes, ran, m.record.Pending)
			}
		}
	}
}

// TestInterruptedScriptFails: a rollback that is made up for tells what failed,
// as any other.
func TestInterruptedScriptFails(t *testing.T) {
	m := interruptedIn(t, state.ArtifactInstallEnter, true)
	m.fail = map[string]error{"ArtifactRollback_Enter": errors.New("script says no")}
	if _, err := m.engine(t).Resume(t.Context()); !errors.Is(err, ErrInterrupted) || !strings.Contains(err.Error(), "script says no") {
		t.Errorf("Resume: %v", err)
	}
	if m.env["upgrade_available"] != "0" || m.record.Pending != nil || m.record.ArtifactName != "release-2_INCONSISTENT" {
		t.Errorf("environment %v, record %+v", m.env, m.record)
	}
}

// TestInterruptedStops: the rollback that an interruption calls for can be
// stopped, too, and nobody says then that it is over.
func TestInterruptedStops(t *testing.T) {
	for _, inState := range []string{state.ArtifactInstallEnter, state.ArtifactRollbackEnter} {
		for _, before := range []string{state.ArtifactRollbackEnter, state.ArtifactFailureEnter, state.Cleanup} {
			m := interruptedIn(t, inState, true)
			e := m.engine(t)
			e.StopBefore = []string{before}
			if _, err := e.Resume(t.Context()); !errors.Is(err, ErrStopped) || err.Error() != ErrStopped.Error() {
				t.Errorf("%s, before %s: Resume: %v, want %v alone", inState, before, err, ErrStopped)
			}
			if p := m.record.Pending; p == nil || p.InState != before {
				t.Errorf("%s, before %s: pending %+v", inState, before, p)
			}
			_, err := m.engine(t).Resume(t.Context())
			if !errors.Is(err, ErrInterrupted) || errors.Is(err, ErrTrialFailed) {
				t.Errorf("%s, before %s: second Resume: %v", inState, before, err)
			}
			if got, want := m.ranScripts(), scriptsOf(goesBack+fails); got != want {
				t.Errorf("%s, before %s: ran %q, want %q", inState, before, got, want)
			}
		}
	}
}
