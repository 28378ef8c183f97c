//go:build vm

package vm

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestInsertToCommit is the main job: a stick is plugged in, and nobody does
// anything else.
func TestInsertToCommit(t *testing.T) {
	both(t, func(t *testing.T, l *lab) {
		t.Helper()
		stick := l.stick(t, "vfat", l.release2(t))
		d := l.start(t)
		d.want("usb-updater status", "release-1", "slot A")
		d.plug("stick", stick)
		d.says(`installing "release-2" to slot B`)
		d.expect("MENDER boots slot 3 trial 1")
		d.says("ok (0)")
		// The stick is still there. It costs nothing.
		d.says("up-to-date (11)")
		d.login()
		d.want("usb-updater status", "release-2", "slot B", "steady")
		d.want("cat /proc/cmdline", "root=/dev/vda3")
	})
}

// TestFailingHealth: the new release fails its check. The device goes back by
// itself, says why, and leaves the stick alone although it is still there.
func TestFailingHealth(t *testing.T) {
	both(t, func(t *testing.T, l *lab) {
		t.Helper()
		stick := l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2", Files: map[string]string{
			"/etc/usb-updater/usb-updater.conf":  `{"Console": true, "HealthDeadlineSeconds": 0}` + "\n",
			"/etc/usb-updater/health.d/10-check": "#!/bin/sh\necho the pump does not turn\nexit 1\n",
		}}))
		d := l.start(t)
		d.plug("stick", stick)
		d.expect("MENDER boots slot 3 trial 1")
		d.says("health-failed (50)")
		d.expect("MENDER boots slot 2 trial 0")
		d.says("refused (20)")
		d.login()
		d.want("usb-updater status", "release-1", "slot A", "steady", "the pump does not turn")
	})
}

// TestSlotDoesNotBoot: the new release has no kernel. The boot loader goes back,
// the old system tells that it did, and leaves the stick alone.
func TestSlotDoesNotBoot(t *testing.T) {
	both(t, func(t *testing.T, l *lab) {
		t.Helper()
		stick := l.stick(t, "ext4", l.artifact(t, Release{Name: "release-2", Files: map[string]string{"/boot/vmlinuz": "not a kernel"}}))
		d := l.start(t)
		d.plug("stick", stick)
		d.expect("MENDER boots slot 3 trial 1")
		d.expect("MENDER boots slot 2 trial 0")
		d.says("trial-failed (51)")
		d.says("refused (20)")
		d.login()
		d.want("usb-updater status", "release-1", "slot A", "steady", "did not get as far as its boot check")
	})
}

// TestWatchdog: the kernel of the new release hangs. The hardware watchdog resets
// the device, and the boot loader goes back.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	files := beforeData(`
modprobe i6300esb
while [ "$(cat /sys/class/watchdog/watchdog0/state)" != active ]; do sleep 0.1; done
echo 0 >/proc/sys/kernel/panic
echo c >/proc/sysrq-trigger
`)
	files["/etc/systemd/system.conf.d/watchdog.conf"] = "[Manager]\nRuntimeWatchdogSec=20\n"
	stick := l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2", Files: files}))
	cfg := l.config(t)
	cfg.Extra = []string{"-device", "i6300esb"}
	d := l.power(t, cfg)
	d.login()
	d.plug("stick", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.expect("MENDER boots slot 2 trial 0")
	d.says("trial-failed (51)")
	d.login()
	d.want("usb-updater status", "release-1", "slot A", "steady", "did not get as far as its boot check")
}

// TestAgentUpdatesItself: the new release brings another usb-updater. That one
// judges the trial, commits, and is what runs from then on.
func TestAgentUpdatesItself(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const version = "9.9.9-of-the-test"
	program := filepath.Join(l.dir, "usb-updater")
	if err := run(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", program, "../../cmd/usb-updater"); err != nil {
		t.Fatal(err)
	}
	stick := l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2", Copies: map[string]string{"/usr/bin/usb-updater": program}}))
	d := l.start(t)
	if out := d.sh("usb-updater --version"); strings.Contains(out, version) {
		t.Fatalf("the old agent calls itself %s", out)
	}
	d.plug("stick", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.says("ok (0)")
	d.says("up-to-date (11)")
	d.login()
	d.want("usb-updater --version", version)
	d.want("usb-updater status", "release-2", "slot B", "steady")
}

// TestMenderInstall: a person installs from a server, by Mender's command line.
// The server is in the network namespace of the command, and nowhere else.
func TestMenderInstall(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	serve := filepath.Join(l.dir, "serve")
	if err := run(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", serve, "./serve"); err != nil {
		t.Fatal(err)
	}
	files := l.stick(t, "vfat", l.release2(t), serve)
	d := l.start(t)
	d.plugDisk(files)
	d.sh("mount -t vfat -o ro /dev/vdb /mnt && cp /mnt/serve /run/")
	d.want("unshare --net /run/serve /mnt mender -install http://127.0.0.1:8080/release-2.mender", "Use 'commit' to update, or 'rollback' to roll back the update.")
	d.want("fw_printenv", "mender_boot_part=3", "upgrade_available=1")
	d.reboot()
	d.expect("MENDER boots slot 3 trial 1")
	d.says("ok (0)")
	d.login()
	d.want("mender -show-artifact", "release-2")
	d.want("fw_printenv", "mender_boot_part=3", "upgrade_available=0")
}
