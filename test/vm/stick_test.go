//go:build vm

package vm

import "testing"

// TestStickPulled: a stick that is pulled out while it is read costs nothing,
// and the next one installs.
func TestStickPulled(t *testing.T) {
	l := newLab(t)
	stick := l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2"}))
	d := l.start(t)
	d.plug("first", stick)
	d.sh("until journalctl -b --no-pager -u 'usb-updater@*' | grep -q 'stage: write'; do sleep 0.1; done")
	if err := d.m.Pull("first"); err != nil {
		t.Fatal(err)
	}
	d.sh("while systemctl is-active -q 'usb-updater@*' || systemctl list-jobs | grep -q usb-updater@; do sleep 0.1; done")
	d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
	d.want("usb-updater status", "release-1", "slot A")
	d.plug("second", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.login()
	d.settled()
	d.want("usb-updater status", "release-2", "slot B")
}
