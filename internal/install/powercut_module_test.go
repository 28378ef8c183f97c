package install

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/module"
)

// TestPowerCutModule cuts the power at every write of an update by a module,
// the module's own included, and at every write of the recovery from that. The
// device must find its way, alone, to one of the documented ends: with a way
// back the old software under the old name or the new one under the new name,
// without one also a system that is marked as inconsistent. What is called new
// was committed exactly once.
func TestPowerCutModule(t *testing.T) {
	for _, rollback := range []string{"Yes", "No"} {
		for _, reboot := range []string{"No", "Yes"} {
			ends := map[string]int{}
			for first := 0; ; first++ {
				cutAtAll := false
				for second := -1; ; second++ { // -1: no second cut
					m := newMachine()
					m.app.rollback, m.app.reboot = rollback, reboot
					cut1 := moduleLifeWithCut(t, m, first)
					cut2 := recoverWithCut(t, m, second)
					cutAtAll = cutAtAll || cut1
					end := settleModule(t, m)
					ends[end]++
					if end != "mod-2" {
						m.powerOn()
						moduleLifeWithCut(t, m, -1)
						if again := settleModule(t, m); again != "mod-2" {
							t.Errorf("installed again: %s", again)
						}
					}
					if t.Failed() {
						t.Fatalf("rollback %s, reboot %s: cut after write %d, then after write %d", rollback, reboot, first, second)
					}
					if second >= 0 && !cut2 {
						break
					}
				}
				if !cutAtAll {
					break
				}
			}
			t.Logf("power cuts with rollback %s, reboot %s: ends %v", rollback, reboot, ends)
			_, inconsistent := ends["mod-2_INCONSISTENT"]
			if ends["release-1"] == 0 || ends["mod-2"] == 0 || inconsistent != (rollback == "No") {
				t.Errorf("rollback %s: ends %v", rollback, ends)
			}
		}
	}
}

// moduleLifeWithCut is an unattended life: install; reboot, if the module asks
// for it; commit. It tells whether the cut came.
func moduleLifeWithCut(t *testing.T, m *machine, after int) bool {
	t.Helper()
	m.cutAfter = after
	out, err := installModule(t, m.engine(t))
	if m.off {
		return true
	}
	if err != nil {
		t.Errorf("install: %v", err)
		return false
	}
	if out.NeedsReboot {
		used := m.writes
		m.powerOn()
		if after >= 0 {
			m.cutAfter = after - used
		}
	}
	if !out.Committed {
		if err := m.engine(t).Commit(t.Context()); err != nil && !m.off {
			t.Errorf("commit: %v", err)
		}
	}
	return m.off
}

// settleModule boots until nothing is left to do, and returns the artifact name.
func settleModule(t *testing.T, m *machine) string {
	t.Helper()
	for range 2 { // the second boot finds nothing to do
		m.powerOn()
		if _, err := bootCheck(t, m.engine(t)); err != nil {
			t.Errorf("recovery: %v", err)
		}
	}
	r, a := m.record, m.app
	if r.Pending != nil || m.booted != bootenv.A || m.env["upgrade_available"] != "0" {
		t.Errorf("settled with pending %+v, slot %s, environment %v", r.Pending, m.booted, m.env)
	}
	switch r.ArtifactName {
	case "mod-2":
		if a.content != "new" || a.commits != 1 || a.tree {
			t.Errorf("settled as new with %+v", a)
		}
	case "release-1":
		if a.content != "old" {
			t.Errorf("settled as old with %+v", a)
		}
	case "mod-2_INCONSISTENT":
		if a.rollback == "Yes" {
			t.Errorf("settled as inconsistent with %+v", a)
		}
	default:
		t.Errorf("settled as %q", r.ArtifactName)
	}
	name := r.ArtifactName
	if name != "mod-2" {
		m.record.ArtifactName = "release-1" // for another go
		m.app.content, m.app.commits = "old", 0
	}
	return name
}

// TestPowerCutModuleTable holds the documented table against the code: what the
// next run finds after a cut right behind each write.
func TestPowerCutModuleTable(t *testing.T) {
	type row struct {
		write string // the last one that happened
		finds Action
	}
	tables := map[string][]row{
		"Yes": {
			{"", ActionNone},
			{"store", ActionNone}, // attempt
			{"tree", ActionNone},
			{"store", ActionFail}, // installing
			{"ArtifactInstall", ActionFail},
			{"ArtifactInstall end", ActionFail},
			{"store", ActionDecide}, // waiting
			{"store", ActionFail},   // committing
			{"ArtifactCommit", ActionFail},
			{"ArtifactCommit end", ActionFail},
			{"store", ActionFinish}, // committed
			{"Cleanup", ActionFinish},
			{"tree", ActionFinish},
			{"store", ActionNone}, // done
		},
		"No": { // the same without "waiting"
			{"", ActionNone},
			{"store", ActionNone},
			{"tree", ActionNone},
			{"store", ActionFail},
			{"ArtifactInstall", ActionFail},
			{"ArtifactInstall end", ActionFail},
			{"store", ActionFail},
			{"ArtifactCommit", ActionFail},
			{"ArtifactCommit end", ActionFail},
			{"store", ActionFinish},
			{"Cleanup", ActionFinish},
			{"tree", ActionFinish},
			{"store", ActionNone},
		},
	}
	for rollback, want := range tables {
		var got []row
		for after := 0; ; after++ {
			m := newMachine()
			m.app.rollback = rollback
			cut := moduleLifeWithCut(t, m, after)
			if !cut {
				m.cut() // the table's last row: right behind the last write
			}
			r := row{}
			if len(m.written) > 0 {
				r.write = m.written[len(m.written)-1]
			}
			m.powerOn()
			var err error
			if r.finds, _, err = m.engine(t).Inspect(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(got) == 0 || r.write != "tree" || got[len(got)-1] != r {
				got = append(got, r)
			}
			if !cut {
				break
			}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
			t.Errorf("rollback %s (-want +got):\n%s", rollback, diff)
		}
	}
}

// TestPowerCutEmptyPayload: the record is the old one or the new one.
func TestPowerCutEmptyPayload(t *testing.T) {
	for after := range 2 {
		m := newMachine()
		m.cutAfter = after
		_ = installRun(t, m.engine(t), newArtifact(t, func(s *artifacttest.Spec) {
			s.Name, s.Empty, s.Files = "boot-1", true, nil
		})) // the power goes at the latest afterwards
		m.powerOn()
		if want := []string{"release-1", "boot-1"}[after]; m.record.ArtifactName != want || m.record.Pending != nil {
			t.Errorf("cut after write %d: %+v, want the name %s", after, m.record, want)
		}
	}
}

// TestPowerCutModuleRollback: a rollback that fails once, and would not the
// second time. Wherever the power is cut, the old name stands for the old
// software only.
func TestPowerCutModuleRollback(t *testing.T) {
	ends := map[string]int{}
	for after := 0; ; after++ {
		m := newMachine()
		if _, err := installModule(t, m.engine(t)); err != nil {
			t.Fatal(err)
		}
		m.app.fail = map[module.State]error{module.ArtifactRollback: errors.New("no")}
		m.cutAfter = m.writes + after
		_, _ = m.engine(t).Rollback(t.Context(), "") // the power goes at the latest afterwards
		cut := m.off
		m.app.fail = nil
		m.powerOn()
		if action, _, err := m.engine(t).Inspect(t.Context()); err != nil || action == ActionDecide {
			continue // nothing was begun: it waits as before
		}
		_, _ = bootCheck(t, m.engine(t)) // its error says that there was a rollback
		if m.record.Pending != nil || m.record.ArtifactName == "release-1" && m.app.content != "old" {
			t.Errorf("cut after write %d: name %q, pending %+v, content %q", after, m.record.ArtifactName, m.record.Pending, m.app.content)
		}
		ends[m.record.ArtifactName]++
		if !cut {
			break
		}
	}
	if ends["release-1"] == 0 || ends["mod-2_INCONSISTENT"] == 0 || len(ends) != 2 {
		t.Errorf("ends %v", ends)
	}
}
