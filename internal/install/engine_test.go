package install

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/script"
	"github.com/usb-updater/usb-updater/internal/install/slot"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

func TestInstallRebootCommit(t *testing.T) {
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"mender_boot_part": "3", "mender_boot_part_hex": "3", "upgrade_available": "1", "bootcount": "0", "bootlimit": "1"}
	if !maps.Equal(m.env, want) {
		t.Errorf("boot environment %v, want %v", m.env, want)
	}
	if got := m.ranScripts(); got != "Download_Enter Download_Leave ArtifactInstall_Enter ArtifactInstall_Leave" {
		t.Errorf("scripts: %s", got)
	}
	p := m.record.Pending
	if p == nil || p.Version != 1 || p.InState != "" || p.TargetSlot != "B" || p.OriginalSlot != "A" || m.record.ArtifactName != "release-1" {
		t.Errorf("record while waiting: %+v, pending %+v", m.record, p)
	}

	m.powerOn()
	if err := m.engine(t).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.ranScripts(); got != "ArtifactCommit_Enter ArtifactCommit_Leave" {
		t.Errorf("scripts: %s", got)
	}
	if m.env["upgrade_available"] != "0" || m.env["mender_boot_part"] != "3" {
		t.Errorf("boot environment after commit: %v", m.env)
	}
	r := m.record
	if r.ArtifactName != "release-2" || r.Pending != nil || r.Installed == "" || r.Provides["rootfs-image.checksum"] == "" {
		t.Errorf("record after commit: %+v", r)
	}
	if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrNothingPending) {
		t.Errorf("second commit: %v, want ErrNothingPending", err)
	}
}

func TestRefusedBeforeAnyWrite(t *testing.T) {
	big := artifacttest.File{Name: "big.img", Size: slotSize + 1, Open: func() (io.Reader, error) {
		return bytes.NewReader(make([]byte, slotSize+1)), nil
	}}
	tests := []struct {
		name     string
		artifact func(*artifacttest.Spec)
		engine   func(*Engine)
		machine  func(*machine)
		is       error
		text     string
		scripts  string
	}{
		{name: "device type", artifact: func(s *artifacttest.Spec) { s.DeviceTypes = []string{"other", "third"} }, is: ErrDeviceType, text: `["other" "third"]) not compatible with device "test-device"`},
		{name: "no device type", engine: func(e *Engine) { e.DeviceType = "" }, is: ErrDeviceType},
		{name: "depends unknown", artifact: func(s *artifacttest.Spec) { s.Depends = map[string][]string{"board.rev": {"2"}} }, is: ErrDepends, text: `"board.rev"`},
		{name: "depends other name", artifact: func(s *artifacttest.Spec) { s.DependsNames = []string{"release-0"} }, is: ErrDepends, text: `"release-1"`},
		{name: "update module", artifact: func(s *artifacttest.Spec) { s.PayloadType = "docker" }, is: ErrPayloadType, text: `"docker"`},
		{name: "too large", artifact: func(s *artifacttest.Spec) { s.Files = []artifacttest.File{big} }, is: ErrTooLarge, text: "image 65537 bytes, partition 65536 bytes", scripts: "Download_Enter Download_Error"},
		{name: "mounted", engine: func(e *Engine) { e.Mounted = func(slot.Partition) (string, error) { return "/mnt", nil } }, is: ErrMounted, text: "/mnt"},
		{name: "running slot", engine: func(e *Engine) { e.Slots.B.ID = e.Slots.A.ID }, text: "running root file system"},
		{name: "environment that the boot loader does not use", machine: func(m *machine) { m.env["mender_check_saveenv_canary"] = "1" }, is: bootenv.ErrCanary},
		{name: "environment without mender_boot_part", machine: func(m *machine) { delete(m.env, "mender_boot_part") }, text: "mender_boot_part"},
		{name: "environment names another slot", machine: func(m *machine) {
			m.env["mender_boot_part"], m.env["mender_boot_part_hex"] = "3", "3"
			m.booted = bootenv.A
		}, is: ErrInconsistent},
		{name: "open trial without record", machine: func(m *machine) { m.env["upgrade_available"] = "1" }, is: ErrInProgress},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			if tt.machine != nil {
				tt.machine(m)
			}
			e := m.engine(t)
			if tt.engine != nil {
				tt.engine(e)
			}
			err := installRun(t, e, newArtifact(t, tt.artifact))
			switch {
			case err == nil:
				t.Fatal("it is accepted")
			case tt.is != nil && !errors.Is(err, tt.is):
				t.Errorf("install: %v, want %v", err, tt.is)
			case !strings.Contains(err.Error(), tt.text):
				t.Errorf("install: %v, want %q in it", err, tt.text)
			}
			if got := m.ranScripts(); m.writes != 0 || got != tt.scripts {
				t.Errorf("%d writes, scripts %q, want %q", m.writes, got, tt.scripts)
			}
		})
	}
}

func TestDependsSatisfied(t *testing.T) {
	m := newMachine()
	m.record.Provides = map[string]string{"rootfs-image.version": "1"}
	m.record.ArtifactGroup = "fleet"
	a := newArtifact(t, func(s *artifacttest.Spec) {
		s.Depends = map[string][]string{"rootfs-image.version": {"0", "1"}}
		s.DependsNames, s.DependsGroups = []string{"release-1"}, []string{"fleet"}
	})
	if _, err := m.engine(t).Plan(t.Context(), a); err != nil {
		t.Error(err)
	}
}

func TestSecondInstallIsRefused(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		m := newMachine()
		if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
			t.Fatal(err)
		}
		if reboot {
			m.powerOn()
		}
		m.writes = 0
		if err := installRun(t, m.engine(t), newArtifact(t, nil)); !errors.Is(err, ErrInProgress) {
			t.Errorf("after reboot %v: %v, want ErrInProgress", reboot, err)
		}
		if m.writes != 0 {
			t.Errorf("after reboot %v: %d writes", reboot, m.writes)
		}
	}
}

// TestDamagedPayload: what can be seen only at the end must leave the slot
// unarmed.
func TestDamagedPayload(t *testing.T) {
	var b bytes.Buffer
	if err := artifacttest.Write(&b, artifacttest.Spec{Name: "release-2", Compression: "none", Files: []artifacttest.File{artifacttest.Bytes("root.img", newImage)}}); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	flipped := bytes.Replace(whole, []byte("release-2 release-2"), []byte("release-2 RELEASE-2"), 1)
	for name, content := range map[string][]byte{"one changed": flipped, "cut": whole[:len(whole)-6000]} {
		m := newMachine()
		a, err := artifact.Open(bytes.NewReader(content), artifact.Options{})
		if err != nil {
			t.Fatal(err)
		}
		before := maps.Clone(m.env)
		err = installRun(t, m.engine(t), a)
		if _, ok := errors.AsType[*artifact.Error](err); !ok {
			t.Errorf("%s: %v, want an *artifact.Error", name, err)
		}
		if !maps.Equal(m.env, before) || m.record.Pending != nil {
			t.Errorf("%s: environment %v, pending %v", name, m.env, m.record.Pending)
		}
		if got := m.ranScripts(); got != "Download_Enter Download_Error" {
			t.Errorf("%s: scripts %s", name, got)
		}
	}
}

func TestArmNeedsProof(t *testing.T) {
	m := newMachine()
	e := m.engine(t)
	plan, err := e.Plan(t.Context(), newArtifact(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []*Written{nil, {}, {plan: plan}, {plan: plan, proof: &artifact.Verified{}}} {
		if _, err := e.Arm(t.Context(), w); err == nil {
			t.Errorf("Arm(%+v) arms", w)
		}
	}
	if m.writes != 0 {
		t.Errorf("%d writes", m.writes)
	}
}

func TestFailingScripts(t *testing.T) {
	const rollback = " ArtifactRollback_Enter ArtifactRollback_Leave ArtifactFailure_Enter ArtifactFailure_Leave"
	tests := []struct {
		script, ran string
	}{
		{"Download_Enter", "Download_Enter Download_Error"},
		{"Download_Leave", "Download_Enter Download_Leave Download_Error"},
		{"ArtifactInstall_Enter", "Download_Enter Download_Leave ArtifactInstall_Enter ArtifactInstall_Error" + rollback},
		{"ArtifactInstall_Leave", "Download_Enter Download_Leave ArtifactInstall_Enter ArtifactInstall_Leave ArtifactInstall_Error" + rollback},
	}
	for _, tt := range tests {
		t.Run(tt.script, func(t *testing.T) {
			m := newMachine()
			m.fail = map[string]error{tt.script: errors.New("script says no")}
			if err := installRun(t, m.engine(t), newArtifact(t, nil)); err == nil || !strings.Contains(err.Error(), "script says no") {
				t.Errorf("install: %v", err)
			}
			if got := m.ranScripts(); got != tt.ran {
				t.Errorf("scripts:\n%s, want\n%s", got, tt.ran)
			}
			if m.env["upgrade_available"] != "0" || m.env["mender_boot_part"] != "2" || m.record.Pending != nil || m.record.ArtifactName != "release-1" {
				t.Errorf("environment %v, record %+v", m.env, m.record)
			}
			if len(m.record.Failed) != 0 {
				t.Error("an installation that failed counts as a failed trial")
			}
		})
	}
}

func TestFailingCommitScripts(t *testing.T) {
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	m.ranScripts()
	m.fail = map[string]error{"ArtifactCommit_Enter": errors.New("no")}
	if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Errorf("commit: %v, want ErrRolledBack", err)
	}
	if got := m.ranScripts(); got != "ArtifactCommit_Enter ArtifactCommit_Error ArtifactRollback_Enter ArtifactRollback_Leave ArtifactFailure_Enter ArtifactFailure_Leave" {
		t.Errorf("scripts: %s", got)
	}
	if m.env["mender_boot_part"] != "2" || m.env["upgrade_available"] != "0" || m.record.Pending != nil || m.record.ArtifactName != "release-1" || len(m.record.Failed) != 1 {
		t.Errorf("environment %v, record %+v", m.env, m.record)
	}

	m = newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	m.fail = map[string]error{"ArtifactCommit_Leave": errors.New("no")}
	if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrCommittedWithErrors) {
		t.Errorf("commit: %v, want ErrCommittedWithErrors", err)
	}
	if m.env["upgrade_available"] != "0" || m.env["mender_boot_part"] != "3" || m.record.Pending != nil || m.record.ArtifactName != "release-2_INCONSISTENT" {
		t.Errorf("environment %v, record %+v", m.env, m.record)
	}
}

func TestCommitBeforeReboot(t *testing.T) {
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(m.env)
	m.writes = 0
	if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrNotRebooted) {
		t.Errorf("commit: %v, want ErrNotRebooted", err)
	}
	if m.writes != 0 || !maps.Equal(m.env, before) {
		t.Errorf("%d writes, environment %v", m.writes, m.env)
	}
}

func TestBootLoaderWentBack(t *testing.T) {
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.powerOn() // the trial
	m.powerOn() // not committed: back
	m.ranScripts()
	if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrTrialFailed) {
		t.Errorf("commit: %v, want ErrTrialFailed", err)
	}
	if got := m.ranScripts(); got != "ArtifactFailure_Enter ArtifactFailure_Leave" {
		t.Errorf("scripts: %s", got)
	}
	if m.record.Pending != nil || m.record.ArtifactName != "release-1" || len(m.record.Failed) != 1 {
		t.Errorf("record: %+v", m.record)
	}
	if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrNothingPending) {
		t.Errorf("second commit: %v", err)
	}
}

// TestOldSlotRunsWhileArmed: the boot loader started the old slot and left the
// environment armed. The trial is over all the same, and must not come back at
// the boot after.
func TestOldSlotRunsWhileArmed(t *testing.T) {
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.boots++ // another boot, of slot A
	if action, err := m.engine(t).Recover(t.Context()); action != ActionFail || !errors.Is(err, ErrTrialFailed) {
		t.Errorf("Recover: %v, %v", action, err)
	}
	if m.env["upgrade_available"] != "0" || m.env["mender_boot_part"] != "2" || m.record.Pending != nil {
		t.Errorf("environment %v, pending %v", m.env, m.record.Pending)
	}
}

// TestFailedThenGood: an artifact that failed once and then succeeds, tried by
// hand, is not held to have failed any more.
func TestFailedThenGood(t *testing.T) {
	m := newMachine()
	for _, good := range []bool{false, true} {
		if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
			t.Fatal(err)
		}
		m.powerOn()
		if good {
			if err := m.engine(t).Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else if _, err := m.engine(t).Rollback(t.Context(), "bad"); err != nil {
			t.Fatal(err)
		}
		if (len(m.record.Failed) == 0) != good {
			t.Errorf("good: %v, failed: %v", good, m.record.Failed)
		}
		if !good {
			m.powerOn()
		}
	}
}

// TestStartsAreCounted: an installation that never comes to a verdict leaves a
// count behind, until it is committed. Another artifact has a count of its own.
func TestStartsAreCounted(t *testing.T) {
	m := newMachine()
	digest := hexDigest(newArtifact(t, nil).Header())
	other := newArtifact(t, func(s *artifacttest.Spec) { s.Name = "build-2" })
	m.fail = map[string]error{"ArtifactInstall_Leave": &script.Failure{Script: "ArtifactInstall_Leave_00", ExitCode: 1, Reason: "exit status 1"}}
	if err := installRun(t, m.engine(t), other); err == nil {
		t.Fatal("installed")
	}
	for want := 1; want <= 3; want++ {
		if err := installRun(t, m.engine(t), newArtifact(t, nil)); err == nil {
			t.Fatal("installed")
		}
		k := m.record.Known[digest]
		if k.Starts != want || k.Name != "release-2" || !strings.Contains(k.Reason, "exit status 1") {
			t.Errorf("%+v, want %d starts and why", k, want)
		}
	}
	m.fail = nil
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	if err := m.engine(t).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, known := m.record.Known[digest]; known || m.record.Attempt != nil {
		t.Errorf("known %+v, attempt %+v after the commit", m.record.Known, m.record.Attempt)
	}
	if k := m.record.Known[hexDigest(other.Header())]; k.Starts != 1 {
		t.Errorf("the other artifact has %+v, want 1 start", k)
	}
}

// TestSignalInCommitIsNoVerdict: a run that is told to stop while the commit
// scripts run leaves the trial open.
func TestSignalInCommitIsNoVerdict(t *testing.T) {
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.fail = map[string]error{"ArtifactCommit_Enter": context.Canceled}
	if err := m.engine(t).Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v", err)
	}
	if m.env["upgrade_available"] != "1" || len(m.record.Failed) != 0 {
		t.Errorf("environment %v, failed %v", m.env, m.record.Failed)
	}
	m.fail = nil
	if err := m.engine(t).Commit(t.Context()); err != nil || m.record.ArtifactName != "release-2" {
		t.Errorf("second try: %v, name %q", err, m.record.ArtifactName)
	}
}

func TestRollback(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		m := newMachine()
		if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
			t.Fatal(err)
		}
		if reboot {
			m.powerOn()
		}
		m.ranScripts()
		needs, err := m.engine(t).Rollback(t.Context(), "because")
		if err != nil || needs != reboot {
			t.Errorf("rollback: reboot %v, %v", needs, err)
		}
		if got := m.ranScripts(); got != "ArtifactRollback_Enter ArtifactRollback_Leave ArtifactFailure_Enter ArtifactFailure_Leave" {
			t.Errorf("scripts: %s", got)
		}
		if m.env["mender_boot_part"] != "2" || m.env["upgrade_available"] != "0" || m.record.Pending != nil {
			t.Errorf("environment %v, record %+v", m.env, m.record)
		}
		if (len(m.record.Failed) == 1) != reboot {
			t.Errorf("failed: %v after reboot %v", m.record.Failed, reboot)
		}
		if _, err := m.engine(t).Rollback(t.Context(), ""); !errors.Is(err, ErrNothingPending) {
			t.Errorf("second rollback: %v", err)
		}
		if err := installRun(t, m.engine(t), newArtifact(t, nil)); reboot && !errors.Is(err, ErrInconsistent) {
			t.Errorf("install before the reboot: %v, want ErrInconsistent: the old slot is the one that boots", err)
		} else if !reboot && err != nil {
			t.Errorf("install again: %v", err)
		} else if !reboot {
			continue
		}
		m.powerOn()
		if got := m.running(t); got != "release-1" {
			t.Errorf("%s runs", got)
		}
		if _, err := m.engine(t).Rollback(t.Context(), ""); !errors.Is(err, ErrNothingPending) {
			t.Errorf("rollback with nothing pending: %v", err)
		}
	}
}

func TestRollbackScriptFails(t *testing.T) {
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	m.fail = map[string]error{"ArtifactRollback_Enter": errors.New("no")}
	if _, err := m.engine(t).Rollback(t.Context(), ""); err == nil {
		t.Error("no error")
	}
	if m.env["mender_boot_part"] != "2" || m.env["upgrade_available"] != "0" || m.record.Pending != nil || m.record.ArtifactName != "release-2_INCONSISTENT" {
		t.Errorf("environment %v, record %+v", m.env, m.record)
	}
}

// TestLostRecord: the boot environment alone shows a trial.
func TestLostRecord(t *testing.T) {
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	m.record = state.Record{ArtifactName: "release-1"}
	if err := m.engine(t).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.env["upgrade_available"] != "0" || m.record.ArtifactName != "release-2" {
		t.Errorf("environment %v, record %+v", m.env, m.record)
	}
}

// TestEnvironmentCannotBeWritten: arming fails, and nothing stays behind.
func TestEnvironmentCannotBeWritten(t *testing.T) {
	m := newMachine()
	m.failEnv = errors.New("bad flash")
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); !errors.Is(err, ErrBootEnv) || !strings.Contains(err.Error(), "bad flash") {
		t.Errorf("install: %v", err)
	}
	m.failEnv = nil
	if m.record.Pending != nil || m.env["upgrade_available"] != "0" {
		t.Errorf("environment %v, record %+v", m.env, m.record)
	}
}

// badFlash is a boot loader whose environment cannot be read any more.
type badFlash struct{ bootenv.Loader }

func (badFlash) CheckArm(context.Context, bootenv.Slot) error { return errors.New("bad flash") }

// TestEnvironmentCannotBeRead: that is no fault of the artifact.
func TestEnvironmentCannotBeRead(t *testing.T) {
	m := newMachine()
	e := m.engine(t)
	e.Loader = badFlash{e.Loader}
	if err := installRun(t, e, newArtifact(t, nil)); !errors.Is(err, ErrBootEnv) || !strings.Contains(err.Error(), "bad flash") {
		t.Errorf("install: %v", err)
	}
}

// TestCommitCannotBeWritten: the trial stays open, so the boot loader goes back.
func TestCommitCannotBeWritten(t *testing.T) {
	m := newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	m.failEnv = errors.New("bad flash")
	if err := m.engine(t).Commit(t.Context()); !errors.Is(err, ErrBootEnv) || !strings.Contains(err.Error(), "bad flash") {
		t.Errorf("commit: %v", err)
	}
	m.failEnv = nil
	if m.record.Pending == nil || m.env["upgrade_available"] != "1" {
		t.Errorf("environment %v, record %+v", m.env, m.record)
	}
}

// TestStateCannotBeSaved: the record of write 7 is refused by the medium, so
// the environment must not stay armed.
func TestStateCannotBeSaved(t *testing.T) {
	m := newMachine()
	m.onSave = func(r state.Record) error {
		if r.Pending != nil && r.Pending.Version == 1 {
			return errors.New("disk full")
		}
		return nil
	}
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("install: %v", err)
	}
	if m.env["upgrade_available"] != "0" || m.env["mender_boot_part"] != "2" || m.record.Pending != nil {
		t.Errorf("environment %v, record %+v", m.env, m.record)
	}
}
