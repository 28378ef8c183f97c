package install

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// app is what the fake update module manages. Its medium is the machine's.
type app struct {
	content  string // "old", "new", or "half" of either
	backup   bool   // the way back
	tree     bool   // the work tree
	payload  string // in the work tree
	commits  int    // calls of ArtifactCommit that came to their end
	rollback string // what the module answers
	reboot   string
	fail     map[module.State]error
	onCall   func(module.State)
}

// fakeModules has one module, testmod, that does what a module should: it keeps
// the way back until Cleanup, and can be called again after a cut. Each call is
// two writes, so that a cut can come in its middle.
type fakeModules struct{ m *machine }

func (f fakeModules) Find(payloadType string) error {
	if payloadType != "testmod" {
		return module.ErrNotFound
	}
	return nil
}

func (f fakeModules) Download(ctx context.Context, p module.Payload, stream func(context.Context, module.Open) error) error {
	a := &f.m.app
	if err := f.m.write("tree"); err != nil {
		return err
	}
	f.m.ran = append(f.m.ran, "Download")
	*a = app{content: a.content, tree: true, commits: a.commits, rollback: a.rollback, reboot: a.reboot, fail: a.fail, onCall: a.onCall}
	var b bytes.Buffer
	if err := stream(ctx, func(string, int64) (io.Writer, error) { return &b, nil }); err != nil {
		return err
	}
	if err := f.m.write("tree"); err != nil {
		return err
	}
	a.payload = p.CurrentName + "->" + p.ArtifactName + ":" + b.String()
	return a.fail["Download"]
}

func (f fakeModules) Ask(_ context.Context, _ string, q module.Question) (bool, error) {
	answer := f.m.app.rollback
	if q == module.NeedsArtifactReboot {
		answer = f.m.app.reboot
	}
	switch {
	case f.m.off:
		return false, errPowerCut
	case answer != "Yes" && answer != "No" && answer != "":
		return false, &module.Failure{Module: "testmod", State: string(q), Reason: answer}
	}
	return answer == "Yes", nil
}

func (f fakeModules) Run(_ context.Context, _ string, s module.State) error {
	a := &f.m.app
	if err := f.m.write(string(s)); err != nil {
		return err
	}
	f.m.ran = append(f.m.ran, string(s))
	if a.onCall != nil {
		a.onCall(s)
	}
	if err := a.fail[s]; err != nil {
		return err
	}
	switch s {
	case module.ArtifactInstall:
		a.backup, a.content = true, "half"
	case module.ArtifactRollback:
		if a.backup {
			a.content = "half"
		}
	case module.ArtifactCommit, module.ArtifactFailure:
	}
	if err := f.m.write(string(s) + " end"); err != nil {
		return err
	}
	switch s {
	case module.ArtifactInstall:
		a.content = "new"
	case module.ArtifactRollback:
		if a.backup {
			a.content = "old"
		}
	case module.ArtifactCommit:
		a.commits++
	case module.ArtifactFailure:
	}
	return nil
}

func (f fakeModules) Cleanup(context.Context, string) error {
	a := &f.m.app
	if f.m.off {
		return errPowerCut
	}
	if !a.tree {
		return nil
	}
	if err := f.m.write("Cleanup"); err != nil {
		return err
	}
	f.m.ran = append(f.m.ran, "Cleanup")
	a.backup = false
	if err := f.m.write("tree"); err != nil {
		return err
	}
	a.tree = false
	return a.fail["Cleanup"]
}

func moduleArtifact(t *testing.T) *artifact.Artifact {
	t.Helper()
	return newArtifact(t, func(s *artifacttest.Spec) {
		s.Name, s.PayloadType = "mod-2", "testmod"
		s.Files = []artifacttest.File{artifacttest.Bytes("a", []byte("AA")), artifacttest.Bytes("b", []byte("BB"))}
		s.Provides, s.Clears = map[string]string{"rootfs-image.testmod.version": "2"}, []string{"rootfs-image.testmod.*"}
	})
}

// installModule installs and returns the outcome.
func installModule(t *testing.T, e *Engine) (Outcome, error) {
	t.Helper()
	plan, err := e.Plan(t.Context(), moduleArtifact(t))
	if err != nil {
		return Outcome{}, err
	}
	w, err := e.Write(t.Context(), plan)
	if err != nil {
		return Outcome{}, err
	}
	return e.Arm(t.Context(), w)
}

const (
	download = "Download_Enter Download Download_Leave"
	enabling = " ArtifactInstall_Enter ArtifactInstall ArtifactInstall_Leave"
	commits  = "ArtifactCommit_Enter ArtifactCommit ArtifactCommit_Leave Cleanup"
	goesBack = "ArtifactRollback_Enter ArtifactRollback ArtifactRollback_Leave "
	fails    = "ArtifactFailure_Enter ArtifactFailure ArtifactFailure_Leave Cleanup"
)

func TestModuleFlow(t *testing.T) {
	m := newMachine()
	m.record.Provides = map[string]string{"other": "1", "rootfs-image.testmod.version": "1"}
	out, err := installModule(t, m.engine(t))
	if err != nil || out != (Outcome{Begun: true}) {
		t.Fatalf("install: %+v, %v", out, err)
	}
	if got := m.ranScripts(); got != download+enabling {
		t.Errorf("ran %s", got)
	}
	if m.app.payload != "release-1->mod-2:AABB" {
		t.Errorf("payload %q", m.app.payload)
	}
	p := m.record.Pending
	if p == nil || p.Version != 1 || p.TargetSlot != "" || !slices.Equal(p.PayloadTypes, []string{"testmod"}) {
		t.Fatalf("pending: %+v", p)
	}
	if err := m.engine(t).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.ranScripts(); got != commits {
		t.Errorf("ran %s", got)
	}
	want := map[string]string{"other": "1", "rootfs-image.testmod.version": "2"}
	r := m.record
	if r.ArtifactName != "mod-2" || !maps.Equal(r.Provides, want) || r.Pending != nil || r.Attempt != nil || r.Installed == "" {
		t.Errorf("record: %+v", r)
	}
	if m.env["upgrade_available"] != "0" || m.env["mender_boot_part"] != "2" {
		t.Errorf("boot environment: %v", m.env)
	}
}

func TestModuleWithoutRollback(t *testing.T) {
	m := newMachine()
	m.app.rollback, m.app.reboot = "No", "Yes"
	out, err := installModule(t, m.engine(t))
	if want := (Outcome{Begun: true, Committed: true, NeedsReboot: true}); err != nil || out != want {
		t.Fatalf("install: %+v, %v, want %+v", out, err, want)
	}
	if got := m.ranScripts(); got != download+enabling+" "+commits {
		t.Errorf("ran %s", got)
	}
	if m.record.ArtifactName != "mod-2" || m.record.Pending != nil {
		t.Errorf("record: %+v", m.record)
	}
}

// TestModuleFails walks through the failures of every step.
func TestModuleFails(t *testing.T) {
	const installError, commitError = " ArtifactInstall_Error ", " ArtifactCommit_Error "
	for _, tt := range []struct {
		at, rollback, name, ran string
	}{
		{"Download_Enter", "Yes", "release-1", "Download_Enter Download_Error"},
		{"Download", "Yes", "release-1", "Download_Enter Download Download_Error Cleanup"},
		{"Download_Leave", "Yes", "release-1", download + " Download_Error Cleanup"},
		{"SupportsRollback", "garbage", "release-1", download + " Cleanup"},
		{"ArtifactInstall_Enter", "Yes", "release-1", download + " ArtifactInstall_Enter" + installError + goesBack + fails},
		{"ArtifactInstall_Enter", "No", "mod-2_INCONSISTENT", download + " ArtifactInstall_Enter" + installError + fails},
		{"ArtifactInstall", "Yes", "release-1", download + " ArtifactInstall_Enter ArtifactInstall" + installError + goesBack + fails},
		{"ArtifactInstall", "No", "mod-2_INCONSISTENT", download + " ArtifactInstall_Enter ArtifactInstall" + installError + fails},
		{"ArtifactInstall_Leave", "Yes", "release-1", download + enabling + installError + goesBack + fails},
		{"NeedsArtifactReboot", "Yes", "release-1", download + enabling + " " + goesBack + fails},
		{"ArtifactCommit_Enter", "Yes", "release-1", download + enabling + " ArtifactCommit_Enter" + commitError + goesBack + fails},
		{"ArtifactCommit_Enter", "No", "mod-2_INCONSISTENT", download + enabling + " ArtifactCommit_Enter" + commitError + fails},
		{"ArtifactCommit", "Yes", "release-1", download + enabling + " ArtifactCommit_Enter ArtifactCommit" + commitError + goesBack + fails},
		{"ArtifactCommit", "No", "mod-2_INCONSISTENT", download + enabling + " ArtifactCommit_Enter ArtifactCommit" + commitError + fails},
		{"ArtifactCommit_Leave", "Yes", "mod-2_INCONSISTENT", download + enabling + " ArtifactCommit_Enter ArtifactCommit ArtifactCommit_Leave ArtifactCommit_Error Cleanup"},
		{"Cleanup", "Yes", "mod-2", download + enabling + " " + commits},
	} {
		t.Run(tt.at+" "+tt.rollback, func(t *testing.T) {
			m := newMachine()
			m.app.rollback = tt.rollback
			no := errors.New("it says no")
			m.fail = map[string]error{tt.at: no}
			m.app.fail = map[module.State]error{module.State(tt.at): no}
			if tt.at == "NeedsArtifactReboot" {
				m.app.reboot = "garbage"
			}
			out, err := installModule(t, m.engine(t))
			if err == nil && !out.Committed {
				err = m.engine(t).Commit(t.Context())
			}
			if err == nil {
				t.Error("no error")
			}
			if inconsistent := strings.HasSuffix(tt.name, "INCONSISTENT") && tt.at != "ArtifactCommit_Leave"; errors.Is(err, ErrNotRolledBack) != inconsistent {
				t.Errorf("error %v, want ErrNotRolledBack: %v", err, inconsistent)
			}
			if got := m.ranScripts(); got != tt.ran {
				t.Errorf("ran\n%s, want\n%s", got, tt.ran)
			}
			if m.record.ArtifactName != tt.name || m.record.Pending != nil || m.app.tree {
				t.Errorf("record %+v, want the name %s; work tree %v", m.record, tt.name, m.app.tree)
			}
			if tt.name == "release-1" && m.app.content != "old" {
				t.Errorf("content %q under the old name", m.app.content)
			}
		})
	}
}

func TestModuleRollback(t *testing.T) {
	for _, tt := range []struct {
		fail, rollback, name string
		is                   error
		ran                  string
	}{
		{"", "Yes", "release-1", nil, goesBack + fails},
		{"ArtifactRollback_Enter", "Yes", "mod-2_INCONSISTENT", ErrNotRolledBack, goesBack + fails},
		{"ArtifactRollback", "Yes", "mod-2_INCONSISTENT", ErrNotRolledBack, goesBack + fails},
		{"ArtifactRollback_Leave", "Yes", "mod-2_INCONSISTENT", ErrNotRolledBack, goesBack + fails},
	} {
		m := newMachine()
		if _, err := installModule(t, m.engine(t)); err != nil {
			t.Fatal(err)
		}
		m.ranScripts()
		m.app.rollback = tt.rollback
		m.fail = map[string]error{tt.fail: errors.New("no")}
		m.app.fail = map[module.State]error{module.State(tt.fail): errors.New("no")}
		reboot, err := m.engine(t).Rollback(t.Context(), "because")
		if reboot || !errors.Is(err, tt.is) || tt.is == nil && err != nil {
			t.Errorf("%s: Rollback = %v, %v, want %v", tt.fail, reboot, err, tt.is)
		}
		if got := m.ranScripts(); got != tt.ran {
			t.Errorf("%s: ran %s", tt.fail, got)
		}
		if m.record.ArtifactName != tt.name || m.record.Pending != nil || len(m.record.Failed) != 1 {
			t.Errorf("%s: record %+v, want the name %s", tt.fail, m.record, tt.name)
		}
	}
}

// TestModuleThatCannotGoBack: an update that was stopped before its commit
// cannot be rolled back, and says so, without being touched.
func TestModuleThatCannotGoBack(t *testing.T) {
	m := newMachine()
	m.app.rollback = "No"
	e := m.engine(t)
	e.StopBefore = []string{state.ArtifactCommitEnter}
	if _, err := installModule(t, e); !errors.Is(err, ErrStopped) {
		t.Fatalf("install: %v", err)
	}
	m.writes = 0
	if _, err := m.engine(t).Rollback(t.Context(), ""); !errors.Is(err, ErrNoRollback) || m.writes != 0 {
		t.Errorf("Rollback: %v, %d writes", err, m.writes)
	}
	if err := m.engine(t).Commit(t.Context()); err != nil || m.record.ArtifactName != "mod-2" {
		t.Errorf("Commit: %v, name %q", err, m.record.ArtifactName)
	}
}

// TestModuleReboot: what asks for a reboot waits for it unattended; by hand it
// can be committed at once.
func TestModuleReboot(t *testing.T) {
	m := newMachine()
	m.app.reboot = "Yes"
	if out, err := installModule(t, m.engine(t)); err != nil || !out.NeedsReboot {
		t.Fatalf("install: %+v, %v", out, err)
	}
	if action, err := m.engine(t).Recover(t.Context()); action != ActionReboot || err != nil {
		t.Errorf("before the reboot: %v, %v", action, err)
	}
	if err := m.engine(t).Ready(t.Context()); !errors.Is(err, ErrInProgress) {
		t.Errorf("before the reboot: Ready = %v", err)
	}
	m.powerOn()
	if action, err := m.engine(t).Recover(t.Context()); action != ActionDecide || err != nil {
		t.Errorf("after the reboot: %v, %v", action, err)
	}
	if err := m.engine(t).Commit(t.Context()); err != nil {
		t.Error(err)
	}
	m = newMachine()
	m.app.reboot = "Yes"
	if _, err := installModule(t, m.engine(t)); err != nil {
		t.Fatal(err)
	}
	if err := m.engine(t).Commit(t.Context()); err != nil {
		t.Errorf("commit before the reboot: %v", err)
	}
}

// TestSignalInModuleCommit: told to stop in a commit script, the update stays
// pending; told to stop in the module's own call, it is undone.
func TestSignalInModuleCommit(t *testing.T) {
	m := newMachine()
	if _, err := installModule(t, m.engine(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.fail = map[string]error{"ArtifactCommit_Enter": context.Canceled}
	if err := m.engine(t).Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v", err)
	}
	if p := m.record.Pending; p == nil || p.Version != 1 {
		t.Fatalf("pending: %+v", p)
	}
	m.fail = nil
	m.app.fail = map[module.State]error{module.ArtifactCommit: context.Canceled}
	if err := m.engine(t).Commit(ctx); !errors.Is(err, ErrRolledBack) || m.app.content != "old" || m.record.Pending != nil {
		t.Errorf("Commit: %v, content %q, pending %v", err, m.app.content, m.record.Pending)
	}
}

func TestModuleIsNotThere(t *testing.T) {
	m := newMachine()
	unknown := func(s *artifacttest.Spec) { s.PayloadType = "docker" }
	if err := installRun(t, m.engine(t), newArtifact(t, unknown)); !errors.Is(err, ErrPayloadType) || m.writes != 0 {
		t.Errorf("install: %v, %d writes", err, m.writes)
	}
	// Gone after the installation: the update cannot be undone any more, and
	// the record must not stay for ever.
	m.record.Pending = &state.Pending{Version: 2, InState: state.ArtifactInstallEnter, ArtifactName: "x", PayloadTypes: []string{"../docker"}}
	if action, err := m.engine(t).Recover(t.Context()); action != ActionFail || !errors.Is(err, ErrNotRolledBack) {
		t.Errorf("Recover = %v, %v", action, err)
	}
	if m.record.Pending != nil || m.record.ArtifactName != "x_INCONSISTENT" {
		t.Errorf("record: %+v", m.record)
	}
}

func TestEmptyPayload(t *testing.T) {
	empty := func(s *artifacttest.Spec) {
		s.Name, s.Empty, s.Files, s.NoClears = "boot-1", true, nil, true
		s.Provides = map[string]string{"data.version": "7"}
	}
	m := newMachine()
	m.record.Provides, m.record.ArtifactGroup = map[string]string{"old": "1"}, "group"
	e := m.engine(t)
	plan, err := e.Plan(t.Context(), newArtifact(t, empty))
	if err != nil {
		t.Fatal(err)
	}
	w, err := e.Write(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.Arm(t.Context(), w)
	if err != nil || out != (Outcome{Begun: true, Committed: true}) {
		t.Fatalf("Arm = %+v, %v", out, err)
	}
	r := m.record
	if r.ArtifactName != "boot-1" || !maps.Equal(r.Provides, map[string]string{"data.version": "7"}) || r.ArtifactGroup != "" || r.Pending != nil {
		t.Errorf("record: %+v", r)
	}
	if m.writes != 1 || m.ranScripts() != "" {
		t.Errorf("%d writes, want 1; scripts %v", m.writes, m.ran)
	}
	dependsOn := func(s *artifacttest.Spec) { empty(s); s.DependsNames = []string{"another"} }
	if err := installRun(t, m.engine(t), newArtifact(t, dependsOn)); !errors.Is(err, ErrDepends) {
		t.Errorf("depends: %v", err)
	}
}

// TestNoSlots: without root slots, modules work and images are refused.
func TestNoSlots(t *testing.T) {
	m := newMachine()
	engine := func() *Engine {
		e := m.engine(t)
		e.NoSlots, e.Loader, e.Slots = errors.New("no slots"), nil, Slots{}
		return e
	}
	if err := installRun(t, engine(), newArtifact(t, nil)); err == nil || !strings.Contains(err.Error(), "no slots") {
		t.Errorf("image: %v", err)
	}
	if _, err := installModule(t, engine()); err != nil {
		t.Fatal(err)
	}
	if err := engine().Commit(t.Context()); err != nil || m.record.ArtifactName != "mod-2" {
		t.Errorf("Commit: %v, name %q", err, m.record.ArtifactName)
	}
	m.record.Pending = &state.Pending{Version: 1, PayloadTypes: []string{"rootfs-image"}}
	if _, err := engine().Recover(t.Context()); err == nil || m.record.Pending == nil {
		t.Errorf("an image is pending: %v", err)
	}
}

// TestModuleProgress: events name the module and count each file.
func TestModuleProgress(t *testing.T) {
	m := newMachine()
	e := m.engine(t)
	var got []Event
	e.Report = func(ev Event) { got = append(got, ev) }
	if _, err := installModule(t, e); err != nil {
		t.Fatal(err)
	}
	want := []Event{
		{Step: StepWrite, Artifact: "mod-2", Module: "testmod", Bytes: 2, Total: 2},
		{Step: StepWrite, Artifact: "mod-2", Module: "testmod", Bytes: 2, Total: 2, Before: 2},
		{Step: StepInstall, Artifact: "mod-2", Module: "testmod"},
	}
	for i := range got {
		got[i].Slot, got[i].Elapsed = 0, 0
		got[i].Read, got[i].ReadTotal = 0, 0
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
