package install

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/bootenv"
)

// TestPowerCut cuts the power after every write of a whole update, and after
// every write of the recovery from that. After each cut a whole system must
// boot, and the device must find its way, alone, to a state in which record,
// boot environment and running slot agree.
func TestPowerCut(t *testing.T) { cutEverywhere(t, newMachine) }

func cutEverywhere(t *testing.T, newMachine func() *machine) {
	t.Helper()
	type outcome struct{ cuts, stillOld, alreadyNew int }
	var sum outcome
	for _, keep := range []bool{false, true} {
		for first := 0; ; first++ {
			cutAtAll := false
			for second := -1; ; second++ { // -1: no second cut
				m := newMachine()
				m.keep = keep
				cut1 := lifeWithCut(t, m, first)
				cut2 := recoverWithCut(t, m, second)
				cutAtAll = cutAtAll || cut1
				if t.Failed() {
					t.Fatalf("cut after write %d, then after write %d (cache kept: %v)", first, second, keep)
				}
				sum.cuts++
				switch settle(t, m) {
				case "release-1":
					sum.stillOld++
					installAgain(t, m)
				case "release-2":
					sum.alreadyNew++
				}
				if t.Failed() {
					t.Fatalf("cut after write %d, then after write %d (cache kept: %v)", first, second, keep)
				}
				if second >= 0 && !cut2 {
					break
				}
			}
			if !cutAtAll {
				break
			}
		}
	}
	t.Logf("power cuts: %d, old system afterwards: %d, new system: %d, neither: 0", sum.cuts, sum.stillOld, sum.alreadyNew)
	if sum.stillOld == 0 || sum.alreadyNew == 0 {
		t.Errorf("the cuts do not cover the update: %+v", sum)
	}
}

// TestPowerCutTable holds the documented table against the code: after a cut
// right behind each write, which slot boots, and what the next run finds.
func TestPowerCutTable(t *testing.T) {
	type row struct {
		write string // the last one that happened
		boots bootenv.Slot
		finds Action
	}
	want := []row{
		{"", bootenv.A, ActionNone},
		{"store", bootenv.A, ActionNone}, // attempt
		{"slot", bootenv.A, ActionNone},
		{"sync", bootenv.A, ActionNone},
		{"store", bootenv.A, ActionFail},   // installing
		{"env", bootenv.B, ActionRollback}, // armed
		{"store", bootenv.A, ActionFail},   // waiting, cut on the trial boot: the boot loader goes back
		{"store", bootenv.A, ActionFail},   // committing, cut on the trial boot
		{"env", bootenv.B, ActionFinish},   // confirmed
		{"store", bootenv.B, ActionNone},   // done
	}
	var got []row
	for after := 0; ; after++ {
		m := newMachine()
		cut := lifeWithCut(t, m, after)
		if !cut {
			m.cut() // the table's last row: right behind the last write
		}
		r := row{}
		if len(m.written) > 0 {
			r.write = m.written[len(m.written)-1]
		}
		m.powerOn()
		action, _, err := m.engine(t).Inspect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.boots, r.finds = m.booted, action
		if len(got) == 0 || r.write != "slot" || got[len(got)-1] != r {
			got = append(got, r)
		}
		if !cut {
			break
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Right behind "waiting", before the reboot that was asked for.
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.cut()
	m.powerOn()
	if action, _, err := m.engine(t).Inspect(t.Context()); err != nil || m.booted != bootenv.B || action != ActionDecide {
		t.Errorf("waiting: slot %s boots, %v, %v", m.booted, action, err)
	}
}

// lifeWithCut installs, reboots and commits, and cuts the power after that
// many writes. It tells whether the cut came.
func lifeWithCut(t *testing.T, m *machine, after int) bool {
	t.Helper()
	m.cutAfter = after
	err := installRun(t, m.engine(t), newArtifact(t, nil))
	if m.off {
		return true
	}
	if err != nil {
		t.Errorf("install: %v", err)
		return false
	}
	used := m.writes
	m.argument = m.engine(t).RebootArgument()
	m.powerOn()
	m.cutAfter = after - used
	if _, err := bootCheck(t, m.engine(t)); err != nil && !m.off {
		t.Errorf("commit: %v", err)
	}
	return m.off
}

// recoverWithCut boots and cuts the power again, during the recovery.
func recoverWithCut(t *testing.T, m *machine, after int) bool {
	t.Helper()
	if after < 0 {
		return false
	}
	m.powerOn()
	m.running(t)
	m.cutAfter = after
	_, _ = bootCheck(t, m.engine(t)) // whatever it says: the power went
	return m.off
}

// settle boots until nothing is left to do, and returns what runs then.
func settle(t *testing.T, m *machine) string {
	t.Helper()
	for range 4 {
		m.powerOn()
		name := m.running(t)
		e := m.engine(t)
		reboot, err := bootCheck(t, e)
		if err != nil && !reboot {
			t.Errorf("recovery: %v", err)
			return name
		}
		if reboot {
			continue
		}
		st, err := e.inspect(t.Context())
		if err != nil {
			t.Errorf("inspect: %v", err)
		}
		if st.env.Phase != bootenv.Steady || st.record.Pending != nil || st.record.ArtifactName != name {
			t.Errorf("settled with phase %v, pending %v, name %q while %q runs", st.env.Phase, st.record.Pending, st.record.ArtifactName, name)
		}
		return name
	}
	t.Error("the device reboots and reboots")
	return ""
}

// installAgain makes sure that nothing that happened keeps the update away.
func installAgain(t *testing.T, m *machine) {
	t.Helper()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Errorf("install again: %v", err)
		return
	}
	m.argument = m.engine(t).RebootArgument()
	if got := settle(t, m); got != "release-2" {
		t.Errorf("%q runs after installing again", got)
	}
}

// TestPowerCutWithArmedLeftover: the environment is armed for a slot, and
// nobody's record says so. Writing that slot must not begin before it is
// disarmed.
func TestPowerCutWithArmedLeftover(t *testing.T) {
	third := bytes.Repeat([]byte("release-3 "), 5000)
	for after := 0; ; after++ {
		m := newMachine()
		m.env["mender_boot_part"], m.env["mender_boot_part_hex"], m.env["upgrade_available"], m.env["bootcount"] = "3", "3", "1", "0"
		copy(m.slots[1], newImage) // armed for a whole slot, once
		m.cutAfter, m.keep = after, true
		a := newArtifact(t, func(s *artifacttest.Spec) {
			s.Files = []artifacttest.File{artifacttest.Bytes("root.img", third)}
		})
		_ = installRun(t, m.engine(t), a) // the power goes at the latest afterwards
		cut := m.off
		if !cut {
			return
		}
		m.powerOn()
		whole := m.whole() || m.booted == bootenv.B && bytes.HasPrefix(m.slots[1], third)
		if !whole {
			t.Fatalf("cut after write %d: slot %s boots and is not whole", after, m.booted)
		}
	}
}

// TestPowerCutCanFail shows that the machine sees bricks: with a medium whose
// flush does nothing, and nobody who reads back, some cut must leave a slot
// that boots and is not whole. With the read back there is none.
func TestPowerCutCanFail(t *testing.T) {
	bricks := func(skipVerify bool) (n int) {
		for after := 0; ; after++ {
			m := newMachine()
			m.flushLies, m.cutAfter = true, after
			e := m.engine(t)
			e.SkipVerify = skipVerify
			_ = installRun(t, e, newArtifact(t, nil)) // the power goes at the latest afterwards
			cut := m.off
			m.cut()
			m.powerOn()
			if !m.whole() {
				n++
			}
			if !cut {
				return n
			}
		}
	}
	if n := bricks(true); n == 0 {
		t.Error("no brick was found where there must be one")
	}
	if n := bricks(false); n != 0 {
		t.Errorf("%d bricks in spite of the read back", n)
	}
}
