package install

import (
	"testing"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

var allInStates = []string{
	"", state.BeforeArtifactInstallEnter, state.ArtifactInstallEnter, state.BeforeArtifactCommitEnter, state.ArtifactCommitEnter,
	state.BeforeArtifactCommitLeave, state.ArtifactCommitLeave, state.ArtifactRollbackEnter, state.ArtifactFailureEnter, state.Cleanup,
}

// TestDecideDomain walks over every situation and holds the decision against
// rules that were written down independently of the code.
func TestDecideDomain(t *testing.T) {
	situations := 0
	for _, phase := range []bootenv.Phase{bootenv.Steady, bootenv.Armed, bootenv.Trial, bootenv.Inconsistent} {
		for _, booted := range []bootenv.Slot{bootenv.A, bootenv.B} {
			for _, targetSlot := range []string{"", "A", "B"} {
				for _, inState := range allInStates {
					for _, sameBoot := range []bool{true, false} {
						for flags := range 4 {
							nameRuns, volatile := flags&1 != 0, flags&2 != 0
							p := &state.Pending{Version: 2, InState: inState, TargetSlot: targetSlot, BootID: "this"}
							if inState == "" {
								p.Version = 1
							}
							s := situation{pending: p, phase: phase, booted: booted, bootID: "this", nameRuns: nameRuns, volatile: volatile}
							if !sameBoot {
								p.BootID = "another"
							}
							checkDecision(t, s, decide(s))
							situations++
						}
					}
				}
			}
		}
	}
	t.Logf("%d situations", situations)
}

func checkDecision(t *testing.T, s situation, got Action) {
	t.Helper()
	p := s.pending
	waits := p.Version == 1 || p.InState == state.BeforeArtifactCommitEnter
	fail := func(rule string) {
		t.Helper()
		t.Errorf("phase %v, booted %v, target %q, state %q (version %d), same boot %v, name runs %v, volatile %v: %v; but %s",
			s.phase, s.booted, p.TargetSlot, p.InState, p.Version, p.BootID == s.bootID, s.nameRuns, s.volatile, got, rule)
	}
	if got == ActionNone {
		fail("a pending record never calls for nothing")
	}
	if got == ActionDecide && s.phase != bootenv.Trial {
		fail("only a trial can be committed or rolled back")
	}
	armed := s.phase == bootenv.Armed || s.volatile && s.phase == bootenv.Steady
	if got == ActionReboot && (!armed || p.BootID != s.bootID) {
		fail("a reboot helps only in the boot that armed")
	}
	if got == ActionFinish && s.phase != bootenv.Steady {
		fail("only a confirmed slot can be finished")
	}
	if p.TargetSlot == "" {
		return
	}
	onTarget := p.TargetSlot == s.booted.String()
	if got == ActionFail && onTarget {
		fail("the slot that runs must not be called failed")
	}
	if got == ActionFinish && !onTarget {
		fail("what does not run must not be called installed")
	}
	if got == ActionDecide && p.InState == state.ArtifactInstallEnter {
		fail("an unfinished installation must not be committed")
	}
	if s.phase == bootenv.Trial && onTarget && waits && got != ActionDecide {
		fail("this is the trial that was asked for")
	}
	asked := s.volatile && waits && p.BootID == s.bootID
	if s.phase == bootenv.Steady && !onTarget && asked && got != ActionReboot {
		fail("the reboot that tries it is still to come")
	}
	stops := p.InState == state.BeforeArtifactInstallEnter
	if s.phase == bootenv.Steady && !onTarget && stops && got != ActionResume {
		fail("nothing of it has begun")
	}
	if s.phase == bootenv.Steady && !onTarget && !asked && !stops && got != ActionFail {
		fail("it was cut short, or the boot loader went back")
	}
}

func TestDecideWithoutRecord(t *testing.T) {
	for phase, want := range map[bootenv.Phase]Action{
		bootenv.Steady: ActionNone, bootenv.Armed: ActionNone, bootenv.Trial: ActionDecide, bootenv.Inconsistent: ActionRefuse,
	} {
		if got := decide(situation{phase: phase}); got != want {
			t.Errorf("decide(no record, %v) = %v, want %v", phase, got, want)
		}
	}
}

// TestOtherClientsRecord covers what an older client wrote, which names no
// slots.
func TestOtherClientsRecord(t *testing.T) {
	p := &state.Pending{Version: 1, ArtifactName: "release-2"}
	for _, tt := range []struct {
		name string
		s    situation
		want Action
	}{
		{"its trial runs", situation{pending: p, phase: bootenv.Trial, booted: bootenv.B}, ActionDecide},
		{"not rebooted yet", situation{pending: p, phase: bootenv.Armed, booted: bootenv.A}, ActionReboot},
		{"fell back", situation{pending: p, phase: bootenv.Steady, booted: bootenv.A}, ActionFail},
		{"cut inside its commit", situation{pending: p, phase: bootenv.Steady, booted: bootenv.B, nameRuns: true}, ActionFinish},
	} {
		if got := decide(tt.s); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestVolatileBootID: where the boot cannot be told, an update that a volatile
// boot loader did not start is not waited for.
func TestVolatileBootID(t *testing.T) {
	for _, tt := range []struct {
		recorded, now string
		want          Action
	}{{"this", "this", ActionReboot}, {"this", "next", ActionFail}, {"this", "", ActionFail}, {"", "this", ActionFail}, {"", "", ActionFail}} {
		p := &state.Pending{Version: 1, TargetSlot: "B", BootID: tt.recorded}
		if got := decide(situation{pending: p, booted: bootenv.A, bootID: tt.now, volatile: true}); got != tt.want {
			t.Errorf("armed in boot %q, now boot %q: %v, want %v", tt.recorded, tt.now, got, tt.want)
		}
	}
}

// TestDecideModule: an update by a module has its record alone to go by.
func TestDecideModule(t *testing.T) {
	for _, inState := range append(allInStates, "waiting") {
		for _, phase := range []bootenv.Phase{bootenv.Steady, bootenv.Armed, bootenv.Trial, bootenv.Inconsistent} {
			for _, failed := range []bool{true, false} {
				for _, needsReboot := range []bool{true, false} {
					for _, bootID := range []string{"", "this", "another"} {
						for _, ours := range []string{"", "digest"} {
							p := &state.Pending{
								Version: 2, InState: inState, PayloadTypes: []string{"testmod"}, Failed: failed,
								NeedsReboot: needsReboot, BootID: bootID, ManifestDigest: ours,
							}
							if inState == "waiting" {
								p.Version, p.InState = 1, ""
							}
							want := ActionFail
							switch inState {
							case state.BeforeArtifactInstallEnter:
								want = ActionResume
							case "waiting", state.BeforeArtifactCommitEnter:
								want = ActionDecide
								if needsReboot && bootID == "this" {
									want = ActionReboot
								}
							case state.BeforeArtifactCommitLeave, state.ArtifactCommitLeave:
								want = ActionFinish
							case state.Cleanup:
								if !failed {
									want = ActionFinish
								}
							}
							if got := decide(situation{pending: p, phase: phase, bootID: "this"}); got != want {
								t.Errorf("decide(%+v, phase %v) = %v, want %v", p, phase, got, want)
							}
						}
					}
				}
			}
		}
	}
}
