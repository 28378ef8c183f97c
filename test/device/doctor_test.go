//go:build device

package device

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDoctorDataOnSlot: a data directory that is on a root slot is the mistake
// that loses the record of an update with the reboot. Only a mounted slot
// shows it.
func TestDoctorDataOnSlot(t *testing.T) {
	need(t, "mount")
	d := newDevice(t, 24*mib, "")
	doctor := func() string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), filepath.Join(programs(t), "usb-updater"), "--root", d.Dir, "doctor").Output()
		if _, exited := err.(*exec.ExitError); err != nil && !exited { //nolint:errorlint // not wrapped
			t.Fatal(err)
		}
		return string(out)
	}
	if out := doctor(); !strings.Contains(out, "is on neither slot") {
		t.Errorf("doctor, data beside the slots:\n%s", out)
	}
	data := filepath.Join(d.Dir, "var/lib/mender")
	command(t, "mount", filepath.Join(d.Dir, "dev/mmcblk0p2"), data)
	t.Cleanup(func() {
		if err := unix.Unmount(data, 0); err != nil {
			t.Error(err)
		}
	})
	if out := doctor(); !strings.Contains(out, "FAIL  data directory") || !strings.Contains(out, "is on slot A") {
		t.Errorf("doctor, data on the running slot:\n%s", out)
	}
}
