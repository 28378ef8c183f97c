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
			"TCP": ["127.0.0.1:8080"], "RequiredUnits": ["app.socket", "dbus.service"], "StableSeconds": 1, "AllowFailedUnits": []}}` + "\n",
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

// TestGiveUpUnit: a boot check that breaks, and a boot that ends in the emergency
// shell, lead to the unit that leaves the trial, which can do so in its sandbox.
// In the emergency shell the data partition is not there, so that nothing could
// be kept but what was known before the reboot.
func TestGiveUpUnit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		broken map[string]string
		says   []string
	}{
		"check breaks": {
			map[string]string{"/etc/systemd/system/usb-updater-boot.service.d/a.conf": "[Service]\nExecStart=\nExecStart=/bin/false\n"},
			[]string{"health-failed", "the boot check did not come to an end"},
		},
		"emergency": {
			map[string]string{
				"/etc/systemd/journald.conf.d/zz.conf":         "[Journal]\nForwardToConsole=yes\nTTYPath=/dev/ttyS0\n",
				"/etc/systemd/system/broken.service":           "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/false\n",
				"/etc/systemd/system/local-fs.target.d/a.conf": "[Unit]\nRequires=broken.service\nAfter=broken.service\n",
			},
			[]string{"trial-failed", "did not get as far as its boot check"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			stick := l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2", Files: tt.broken}))
			d := l.start(t)
			d.plug("stick", stick)
			d.expect("MENDER boots slot 3 trial 1")
			d.expect("MENDER boots slot 2 trial 0")
			d.login()
			d.settled()
			d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
			d.want("usb-updater status", append(tt.says, "release-1", "slot A")...)
		})
	}
}

// TestKeptAway: what keeps the agent away from a stick. Beside a managed Mender
// client, which its sandbox hides from it, nothing is installed; and a property,
// and a file, keep it from being started at all.
func TestKeptAway(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	stick := l.stick(t, "vfat", l.release2(t))
	d := l.start(t)
	ends := func() string { return d.sh("journalctl -b --no-pager -o cat RUN=run CODE=47 | wc -l") }
	d.sh("mkdir -p /run/systemd/system /run/udev/rules.d")
	d.sh(`printf '[Service]\nExecStart=/bin/sleep infinity\n' >/run/systemd/system/mender-updated.service`)
	d.sh("systemctl daemon-reload && systemctl start mender-updated.service")

	// Its service is found by its control group.
	d.plug("first", stick)
	d.sh("until journalctl -b --no-pager -o cat RUN=run CODE=47 | grep -q .; do sleep 0.1; done")
	d.want("usb-updater status", "managed-client (47)", "mender-updated.service")
	before := ends()

	// An event with the property starts nothing.
	d.sh(`echo 'SUBSYSTEM=="block", ENV{USB_UPDATER_IGNORE}="1"' >/run/udev/rules.d/10-ours.rules && udevadm control --reload`)
	again := "systemctl reset-failed 'usb-updater@*'; udevadm trigger --settle --action=add /sys/class/block/sda"
	d.sh(again)
	d.want("udevadm info /dev/sda", "USB_UPDATER_IGNORE=1", "ID_FS_USAGE=filesystem")
	if d.sh("systemctl list-jobs --no-legend 'usb-updater@*'") != "" || ends() != before {
		t.Error("a stick that the property keeps away was looked at")
	}

	// Nor does one while the file is there.
	d.sh("rm /run/udev/rules.d/10-ours.rules && udevadm control --reload && touch /run/usb-updater/inhibit")
	d.sh(again)
	d.sh("systemctl start usb-updater@sda.service")
	if ends() != before {
		t.Error("a stick was looked at although the file is there")
	}

	// Without both it is looked at again.
	d.sh("rm /run/usb-updater/inhibit")
	d.sh("systemctl start usb-updater@sda.service; test $? != 0")
	if ends() == before {
		t.Error("the stick is not looked at any more")
	}
	d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
}
