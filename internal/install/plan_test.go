package install

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/install/slot"
)

// TestMountedTarget: a slot that is mounted is taken out of use where the
// caller allows that, and it is not busy.
func TestMountedTarget(t *testing.T) {
	for _, tt := range []struct {
		name    string
		unmount func(mounted *bool) error
		want    error
	}{
		{"not allowed", nil, ErrMounted},
		{"allowed", func(mounted *bool) error { *mounted = false; return nil }, nil},
		{"busy", func(*bool) error { return unix.EBUSY }, unix.EBUSY},
	} {
		m := newMachine()
		e := m.engine(t)
		mounted := true
		e.Mounted = func(p slot.Partition) (string, error) {
			if mounted && p.ID == e.Slots.B.ID {
				return "/mnt", nil
			}
			return "", nil
		}
		if tt.unmount != nil {
			e.Unmount = func(slot.Partition) error { return tt.unmount(&mounted) }
		}
		err := installRun(t, e, newArtifact(t, nil))
		if !errors.Is(err, tt.want) || tt.want != nil && (m.writes != 0 || !errors.Is(err, ErrMounted)) || tt.want == nil && err != nil {
			t.Errorf("%s: install: %v, want %v; %d writes", tt.name, err, tt.want, m.writes)
		}
	}
}

// TestUnmountWithoutNeed: what is not mounted is left alone.
func TestUnmountWithoutNeed(t *testing.T) {
	m := newMachine()
	e := m.engine(t)
	e.Unmount = func(slot.Partition) error { return errors.New("called without need") }
	if err := installRun(t, e, newArtifact(t, nil)); err != nil {
		t.Error(err)
	}
}
