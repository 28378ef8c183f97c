//go:build vm

package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const uboot = "/usr/lib/u-boot/qemu-x86/u-boot.rom"

// stepTimeout bounds each wait for the device: a boot, an installation.
const stepTimeout = 4 * time.Minute

// lab has what the scenarios share.
type lab struct {
	parts *Parts
	disk  string // of a device that runs release-1
	dir   string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	missing := ""
	if os.Getuid() != 0 {
		missing = " root"
	}
	for _, tool := range []string{"qemu-system-x86_64", "mmdebstrap", "mkimage", "sgdisk", "mke2fs", "debugfs", "mkfs.vfat", "mcopy", "cpio", "modprobe", uboot} {
		if _, err := exec.LookPath(tool); err != nil && !strings.HasPrefix(tool, "/") {
			missing += " " + tool
		}
	}
	if missing != "" {
		if strings.Contains(os.Getenv("REQUIRE"), "vm") {
			t.Fatalf("the virtual device is required and lacks%s", missing)
		}
		t.Skipf("needs%s", missing)
	}
	parts, err := Build(t.Context(), "../../.cache/vm", "../../bin")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{parts: parts, dir: t.TempDir()}
	l.disk = filepath.Join(l.dir, "disk")
	if err := parts.Disk(t.Context(), l.disk, l.image(t, Release{Name: "release-1"})); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) image(t *testing.T, r Release) string {
	t.Helper()
	path := filepath.Join(l.dir, r.Name+".ext4")
	if err := l.parts.Image(t.Context(), path, r); err != nil {
		t.Fatal(err)
	}
	return path
}

// artifact makes a signed artifact of the release.
func (l *lab) artifact(t *testing.T, r Release) string {
	t.Helper()
	path := filepath.Join(l.dir, r.Name+".mender")
	if err := l.parts.Artifact(path, r.Name, l.image(t, r)); err != nil {
		t.Fatal(err)
	}
	return path
}

func (l *lab) stick(t *testing.T, fsType string, files ...string) string {
	t.Helper()
	f, err := os.CreateTemp(l.dir, "stick")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Stick(t.Context(), f.Name(), fsType, 128, files...); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// device is a machine in a test.
type device struct {
	t *testing.T
	m *Machine
}

func (l *lab) start(t *testing.T) *device {
	t.Helper()
	dir, err := os.MkdirTemp("", "vm") //nolint:usetesting // a socket's path must be short, and a failed test keeps its log
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	if err := run(t.Context(), "cp", "--sparse=always", l.disk, disk); err != nil {
		t.Fatal(err)
	}
	m, err := Start(t.Context(), Config{Dir: dir, Disk: disk, Format: "raw", Firmware: uboot})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.PowerOff(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the console's log is in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	d := &device{t, m}
	d.login()
	return d
}

func (d *device) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(d.t.Context(), stepTimeout)
}

func (d *device) login() {
	d.t.Helper()
	ctx, cancel := d.context()
	defer cancel()
	began := time.Now()
	if err := d.m.Login(ctx); err != nil {
		d.t.Fatal(err)
	}
	d.t.Logf("shell after %.1f s", time.Since(began).Seconds())
}

func (d *device) expect(pattern string) {
	d.t.Helper()
	ctx, cancel := d.context()
	defer cancel()
	if _, err := d.m.Expect(ctx, pattern); err != nil {
		d.t.Fatal(err)
	}
}

// sh runs a command that must succeed.
func (d *device) sh(command string) string {
	d.t.Helper()
	ctx, cancel := d.context()
	defer cancel()
	out, status, err := d.m.Run(ctx, command)
	if err != nil {
		d.t.Fatal(err)
	}
	if status != 0 {
		d.t.Fatalf("%s: exit status %d\n%s", command, status, out)
	}
	return out
}

// want checks the output of a command.
func (d *device) want(command string, words ...string) {
	d.t.Helper()
	out := d.sh(command)
	for _, w := range words {
		if !strings.Contains(out, w) {
			d.t.Errorf("%s: no %q in\n%s", command, w, out)
		}
	}
}

// settled waits until the boot check has run.
func (d *device) settled() {
	d.t.Helper()
	d.sh("systemctl is-system-running --wait || true")
}

func (d *device) plug(id, image string) {
	d.t.Helper()
	if err := d.m.Plug(id, image); err != nil {
		d.t.Fatal(err)
	}
}

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
