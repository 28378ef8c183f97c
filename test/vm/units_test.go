//go:build vm

package vm

import "testing"

// TestHealthUnit: the units of the agent, in their sandboxes, judge a trial by
// connections to a service of the device, by its units, and by a program. The
// program sees a disk, and cannot open it.
func TestHealthUnit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	stick := l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2", Files: map[string]string{
		"/etc/systemd/system/app.socket":              "[Socket]\nListenStream=127.0.0.1:8080\nAccept=yes\n",
		"/etc/systemd/system/app@.service":            "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n",
		"/etc/systemd/system/sockets.target.d/a.conf": "[Unit]\nWants=app.socket\n",
		"/etc/usb-updater/usb-updater.conf": `{"HealthDeadlineSeconds": 0, "Health": {
			"TCP": ["127.0.0.1:8080"], "RequiredUnits": ["app.socket"], "StableSeconds": 1, "AllowFailedUnits": []}}` + "\n",
		"/etc/usb-updater/health.d/10-app": "#!/bin/sh\nset -e\ntest -b /dev/vda\nif head -c 1 /dev/vda; then exit 1; fi\n",
	}}))
	d := l.start(t)
	d.plug("stick", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.login()
	d.settled()
	d.want("usb-updater status", "release-2", "slot B")
	d.want("fw_printenv", "mender_boot_part=3", "upgrade_available=0")
	for _, check := range []string{"tcp 127.0.0.1:8080", "required units", "failed units", "10-app"} {
		d.want("journalctl -b --no-pager -o cat -u usb-updater-boot.service CHECK='"+check+"'", "health check ran")
	}
	d.want("systemctl --failed --no-legend 'usb-updater*' | wc -l", "0")
}

// TestGiveUpUnit: a boot check that breaks leads to the unit that leaves the
// trial, which can do so in its sandbox.
func TestGiveUpUnit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	stick := l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2", Files: map[string]string{
		"/etc/systemd/system/usb-updater-boot.service.d/a.conf": "[Service]\nExecStart=\nExecStart=/bin/false\n",
	}}))
	d := l.start(t)
	d.plug("stick", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.expect("MENDER boots slot 2 trial 0")
	d.login()
	d.settled()
	d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
	d.want("usb-updater status", "release-1", "slot A", "health-failed", "the boot check did not come to an end")
}
