package install

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/install/state"
)

// box is the black box of a machine. Forgetting is one write.
type box struct {
	m    *machine
	text map[string]string // by manifest digest
}

func (b *box) Explain(p state.Pending) string { return b.text[p.ManifestDigest] }

func (b *box) Began(digest string) bool { return b.text[digest] != "" }

func (b *box) Forget() error {
	if err := b.m.write("black box"); err != nil {
		return err
	}
	clear(b.text)
	return nil
}

// trial is a machine that runs a trial, and the digest of its update.
func trial(t *testing.T) (m *machine, digest string) {
	t.Helper()
	m = newMachine()
	if err := installRun(t, m.engine(t), newArtifact(t, nil)); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	return m, m.record.Pending.ManifestDigest
}

// TestBlackBoxExplains: what the trial left behind is in the error and in the
// record, whoever closes the update.
func TestBlackBoxExplains(t *testing.T) {
	for name, closeIt := range map[string]func(*Engine) error{
		"recover": func(e *Engine) error { _, err := e.Recover(t.Context()); return err },
		"commit":  func(e *Engine) error { return e.Commit(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			m, digest := trial(t)
			m.powerOn()
			e := m.engine(t)
			b := &box{m, map[string]string{digest: "last stage reached: settled"}}
			e.BlackBox = b
			err := closeIt(e)
			if !errors.Is(err, ErrTrialFailed) || !strings.HasSuffix(err.Error(), ": last stage reached: settled") {
				t.Errorf("error %v, want ErrTrialFailed with the last stage", err)
			}
			if got := m.record.Failed[digest].Reason; !strings.HasSuffix(got, ": last stage reached: settled") {
				t.Errorf("reason %q, want one with the last stage", got)
			}
			if len(b.text) != 0 {
				t.Error("the black box is not forgotten")
			}
		})
	}
}

// TestBlackBoxIsForgotten after a commit and after a rollback, but not by a
// rollback whose record cannot be saved: then it is the only witness.
func TestBlackBoxIsForgotten(t *testing.T) {
	full := errors.New("disk full")
	tests := []struct {
		name string
		end  func(*Engine) error
		save error
		want bool
	}{
		{"commit", func(e *Engine) error { return e.Commit(t.Context()) }, nil, true},
		{"rollback", func(e *Engine) error { _, err := e.Rollback(t.Context(), "bad"); return err }, nil, true},
		{"rollback of a full disk", func(e *Engine) error { _, err := e.Rollback(t.Context(), "bad"); return err }, full, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, digest := trial(t)
			if tt.save != nil {
				m.onSave = func(state.Record) error { return tt.save }
			}
			b := &box{m, map[string]string{digest: "x"}}
			e := m.engine(t)
			e.BlackBox = b
			if err := tt.end(e); !errors.Is(err, tt.save) {
				t.Errorf("error %v, want %v", err, tt.save)
			}
			if got := len(b.text) == 0; got != tt.want {
				t.Errorf("forgotten %v, want %v", got, tt.want)
			}
			if m.env["upgrade_available"] != "0" {
				t.Errorf("environment %v: the trial is still open", m.env)
			}
		})
	}
}

// TestBlackBoxCut cuts the power after each write that closes a failed trial.
// Until the update is closed the black box is there to explain it; a black box
// that stays explains no other update.
func TestBlackBoxCut(t *testing.T) {
	for after := 0; ; after++ {
		m, digest := trial(t)
		m.powerOn()
		m.cutAfter = after
		b := &box{m, map[string]string{digest: "last stage reached: settled"}}
		e := m.engine(t)
		e.BlackBox = b
		_, _ = e.Recover(t.Context()) // cut somewhere
		cut := m.off
		if m.record.Pending != nil && len(b.text) == 0 {
			t.Fatalf("cut after write %d: the update is open, and the black box is gone", after)
		}
		m.powerOn()
		e = m.engine(t)
		e.BlackBox = b
		_, err := e.Recover(t.Context())
		if err != nil && !errors.Is(err, ErrTrialFailed) {
			t.Fatalf("cut after write %d: %v", after, err)
		}
		f := m.record.Failed[digest]
		if m.record.Pending != nil || f.Attempts != 1 || !strings.Contains(f.Reason, "settled") {
			t.Errorf("cut after write %d: pending %v, failure %+v", after, m.record.Pending, f)
		}
		if got := b.Explain(state.Pending{ManifestDigest: "another"}); got != "" {
			t.Errorf("cut after write %d: another update is explained by %q", after, got)
		}
		if !cut {
			if after == 0 {
				t.Error("nothing was written")
			}
			return
		}
	}
}

// TestCloseLost: a trial that another program rolled back has failed; one that it
// committed, or that never began, has not.
func TestCloseLost(t *testing.T) {
	tests := []struct {
		name       string
		began      bool
		environ    map[string]string // that the other program leaves
		wantFailed int
	}{
		{"rolled back", true, map[string]string{"mender_boot_part": "2", "mender_boot_part_hex": "2", "upgrade_available": "0"}, 1},
		{"rolled back before it began", false, map[string]string{"mender_boot_part": "2", "mender_boot_part_hex": "2", "upgrade_available": "0"}, 0},
		{"committed", true, map[string]string{"upgrade_available": "0"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, digest := trial(t)
			b := &box{m, map[string]string{}}
			if tt.began {
				b.text[digest] = "last stage reached: settled"
			}
			m.record.Pending = nil
			maps.Copy(m.env, tt.environ)
			m.powerOn()
			for range 2 { // the second time, nothing is left to close
				e := m.engine(t)
				e.BlackBox = b
				reason, err := e.CloseLost(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if reason != "" && !strings.HasSuffix(reason, ": last stage reached: settled") {
					t.Errorf("CloseLost = %q, want the last stage in it", reason)
				}
				if got := m.record.Failed[digest].Attempts; got != tt.wantFailed {
					t.Errorf("failed %d time(s), want %d", got, tt.wantFailed)
				}
			}
		})
	}
}
