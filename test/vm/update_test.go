//go:build vm

package vm

import "testing"

// TestInsertToCommit is the main job: a stick is plugged in, and nobody does
// anything else.
func TestInsertToCommit(t *testing.T) {
	l := newLab(t)
	stick := l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2"}))
	d := l.start(t)
	d.want("usb-updater status", "release-1", "slot A")
	d.plug("stick", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.login()
	d.settled()
	d.want("usb-updater status", "release-2", "slot B")
	d.want("fw_printenv", "mender_boot_part=3", "upgrade_available=0")
	// The stick is still there. It costs nothing.
	d.want("usb-updater run sda || true", "up-to-date")
	d.want("journalctl -b --no-pager -u 'usb-updater@*'", "The device runs what the stick holds")
}

// TestFailingHealth: the new release fails its check. The device goes back by
// itself, says why, and leaves the stick alone although it is still there.
func TestFailingHealth(t *testing.T) {
	l := newLab(t)
	stick := l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2", Files: map[string]string{
		"/etc/usb-updater/usb-updater.conf":  `{"HealthDeadlineSeconds": 0}` + "\n",
		"/etc/usb-updater/health.d/10-check": "#!/bin/sh\necho the pump does not turn\nexit 1\n",
	}}))
	d := l.start(t)
	d.plug("stick", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.expect("MENDER boots slot 2 trial 0")
	d.login()
	d.settled()
	d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
	d.want("usb-updater status", "release-1", "slot A", "the pump does not turn")
	d.want("usb-updater run sda || true", "failed")
	d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
}

// TestSlotDoesNotBoot: the new release has no kernel. The boot loader goes back,
// and the old system tells that it did.
func TestSlotDoesNotBoot(t *testing.T) {
	l := newLab(t)
	stick := l.stick(t, "ext4", l.artifact(t, Release{Name: "release-2", Files: map[string]string{"/boot/vmlinuz": "not a kernel"}}))
	d := l.start(t)
	d.plug("stick", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.expect("MENDER boots slot 2 trial 0")
	d.login()
	d.settled()
	d.want("usb-updater status", "release-1", "slot A", "did not get as far as its boot check")
}
