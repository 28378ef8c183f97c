package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/script"
	"github.com/usb-updater/usb-updater/internal/install/slot"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

func TestBlames(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	checksum := &artifact.Error{Kind: artifact.Checksum, Err: errors.New("invalid checksum")}
	tests := []struct {
		name string
		ctx  context.Context
		err  error
		want bool
	}{
		{"damaged", t.Context(), checksum, true},
		{"cut short", t.Context(), &artifact.Error{Kind: artifact.Format, Err: io.ErrUnexpectedEOF}, true},
		{"damaged, seen by a module", t.Context(), &module.Failure{State: "Download", Err: checksum}, true},
		{"its script", t.Context(), &script.Failure{Script: "ArtifactInstall_Enter_00", ExitCode: 1}, true},
		{"its script hangs", t.Context(), &script.Failure{Script: "ArtifactInstall_Enter_00", ExitCode: -1}, true},
		{"module", t.Context(), fmt.Errorf("x: %w", &module.Failure{State: "ArtifactInstall", ExitCode: 3}), true},
		{"the stick gave an error", t.Context(), &artifact.Error{Kind: artifact.Media, Err: unix.EIO}, false},
		{"the stick gave an error to a module", t.Context(), &module.Failure{State: "Download", Err: &artifact.Error{Kind: artifact.Media, Err: unix.EIO}}, false},
		{"told to end, and then the stream broke", ended, checksum, false},
		{"told to end", ended, context.Canceled, false},
		{"its script asks to be called later", t.Context(), &script.Failure{Script: "ArtifactInstall_Enter_00", ExitCode: script.RetryLater}, false},
		{"its script does not start", t.Context(), &script.Failure{Script: "ArtifactInstall_Enter_00", ExitCode: -1, Err: fs.ErrPermission}, false},
		{"a script of the device", t.Context(), &script.Failure{Script: "Download_Enter_00", ExitCode: 1}, false},
		{"a module that does not start", t.Context(), &module.Failure{State: "Download", Err: unix.ENOEXEC}, false},
		{"no room on the data partition", t.Context(), fmt.Errorf("work tree: %w", unix.ENOSPC), false},
		{"slot", t.Context(), fmt.Errorf("write slot: %w", unix.EIO), false},
		{"slot keeps something else", t.Context(), slot.ErrMismatch, false},
		{"boot environment", t.Context(), bootenv.ErrVerify, false},
		{"record", t.Context(), state.ErrIO, false},
	}
	for _, tt := range tests {
		if got := blames(tt.ctx, tt.err); got != tt.want {
			t.Errorf("%s: blames = %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestBrokenIsCounted: a damaged payload costs the record of the attempt and that of
// the count, and each artifact has a count of its own.
func TestBrokenIsCounted(t *testing.T) {
	var b bytes.Buffer
	if err := artifacttest.Write(&b, artifacttest.Spec{Name: "release-2", Compression: "none", Files: []artifacttest.File{artifacttest.Bytes("root.img", newImage)}}); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Replace(b.Bytes(), []byte("release-2 release-2"), []byte("release-2 RELEASE-2"), 1)
	m := newMachine()
	var digest string
	for want := 1; want <= 2; want++ {
		a, err := artifact.Open(bytes.NewReader(damaged), artifact.Options{})
		if err != nil {
			t.Fatal(err)
		}
		digest, m.written = hexDigest(a.Header()), nil
		if err := installRun(t, m.engine(t), a); err == nil {
			t.Fatal("installed")
		}
		k := m.record.Known[digest]
		if k.Broken != want || k.Starts != 0 || k.Name != "release-2" || !strings.Contains(k.Reason, "invalid checksum") {
			t.Errorf("%+v, want broken %d times and why", k, want)
		}
		if n := strings.Count(strings.Join(m.written, " "), "store"); n != 2 {
			t.Errorf("%d writes of the record (%v), want 2", n, m.written)
		}
	}
	// A whole copy has the same digest, and a commit clears the count.
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	if err := m.engine(t).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(m.record.Known) != 0 || m.record.Installed != digest {
		t.Errorf("known %+v, installed %.8s, want none and %.8s", m.record.Known, m.record.Installed, digest)
	}
}

// TestNobodysFaultIsNotCounted: what fails around the artifact leaves no count,
// also where the start was counted already.
func TestNobodysFaultIsNotCounted(t *testing.T) {
	tests := map[string]func(m *machine, e *Engine){
		"retry later": func(m *machine, _ *Engine) {
			m.fail = map[string]error{"ArtifactInstall_Enter": &script.Failure{Script: "ArtifactInstall_Enter_00", ExitCode: script.RetryLater}}
		},
		"download script": func(m *machine, _ *Engine) {
			m.fail = map[string]error{"Download_Leave": &script.Failure{Script: "Download_Leave_00", ExitCode: 1}}
		},
		"boot environment": func(m *machine, _ *Engine) { m.failEnv = unix.EIO },
		"slot": func(_ *machine, e *Engine) {
			e.OpenTarget = func(slot.Partition, int64) (Target, error) { return nil, unix.EIO }
		},
	}
	for name, spoil := range tests {
		m := newMachine()
		e := m.engine(t)
		spoil(m, e)
		if err := installRun(t, e, newArtifact(t, nil)); err == nil {
			t.Errorf("%s: installed", name)
		}
		if len(m.record.Known) != 0 || m.record.Pending != nil {
			t.Errorf("%s: known %+v, pending %+v, want none", name, m.record.Known, m.record.Pending)
		}
	}
}

// TestCutStartIsCounted: the power may go after any write of an installation that
// makes it pending, and the start counts.
func TestCutStartIsCounted(t *testing.T) {
	digest := hexDigest(newArtifact(t, nil).Header())
	for after := 0; ; after++ {
		m := newMachine()
		m.cutAfter = after
		_ = installRun(t, m.engine(t), newArtifact(t, nil)) // the power goes at the latest afterwards
		if !m.off {
			return
		}
		starts := m.record.Known[digest].Starts
		if pending := m.record.Pending != nil; pending != (starts == 1) {
			t.Errorf("cut after write %d: pending %v, %d starts", after, pending, starts)
		}
	}
}
