package install

import (
	"testing"

	"github.com/usb-updater/usb-updater/internal/bootenv"
)

// TestPowerCut cuts the power after every write of a whole update, and after
// every write of the recovery from that. After each cut a whole system must
// boot, and the device must find its way, alone, to a state in which record,
// boot environment and running slot agree.
func TestPowerCut(t *testing.T) {
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
	if got := settle(t, m); got != "release-2" {
		t.Errorf("%q runs after installing again", got)
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
