//go:build vm

package vm

import (
	"testing"
)

// flakyTarget is the kernel's dm-flakey below a partition of the device.
type flakyTarget struct {
	name      string // of the device of device mapper
	partition string
}

var (
	flakyData = flakyTarget{"data", "/dev/vda4"}
	flakyEnv  = flakyTarget{"env", "/dev/vda5"}
)

// table is a table of dm-flakey, in the guest's shell: the partition, with a
// feature that makes it fail, or well with "".
func (f flakyTarget) table(feature string) string {
	upAndDown := "1 0"
	if feature != "" {
		upAndDown = "0 1 1 " + feature
	}
	return `--table "0 $(blockdev --getsz ` + f.partition + `) flakey ` + f.partition + ` 0 ` + upAndDown + `"`
}

// create is the shell command that puts dm-flakey over the partition.
func (f flakyTarget) create(feature string) string {
	return "modprobe dm-flakey && dmsetup create " + f.name + " " + f.table(feature)
}

// fault makes the partition fail from now on; "" makes it well.
func (d *device) fault(f flakyTarget, feature string) {
	d.t.Helper()
	d.sh("dmsetup suspend --nolockfs " + f.name + " && dmsetup reload " + f.name + " " + f.table(feature) + " && dmsetup resume " + f.name)
}

// beforeData are files of a release that runs a shell command before the data
// partition is mounted, and so before all that the agent does.
func beforeData(command string) map[string]string {
	return map[string]string{
		"/usr/sbin/before-data": "#!/bin/sh\nset -e\n" + command + "\n",
		"/etc/systemd/system/before-data.service": "[Unit]\nDefaultDependencies=no\nAfter=systemd-udevd.service dev-vda4.device\n" +
			"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/sbin/before-data\n",
		"/etc/systemd/system/data.mount.d/before-data.conf": "[Unit]\nRequires=before-data.service\nAfter=before-data.service\n",
	}
}

// mappedEnv is fw_env.config for a boot environment that device mapper has.
const mappedEnv = "/dev/mapper/env 0x0 0x4000\n/dev/mapper/env 0x4000 0x4000\n"

// envBelow are files of a release whose boot environment is on a device of device
// mapper, which the shell command makes.
func envBelow(command string) map[string]string {
	files := beforeData(command)
	files["/etc/fw_env.config"] = mappedEnv
	return files
}

// flakyData returns a device that runs release-1 and whose data partition is behind
// dm-flakey, and a stick with release-2.
func (l *lab) flakyData(t *testing.T) (d *device, stick string) {
	t.Helper()
	stick = l.stick(t, "vfat", l.release2(t))
	d = l.start(t)
	d.sh("umount /data && " + flakyData.create("") + " && mount /dev/mapper/data /data")
	return d, stick
}

// flakyEnv returns a device that runs release-1 and whose boot environment is behind
// dm-flakey until it reboots, and a stick with release-2, whose own is so, too, with
// the feature.
func (l *lab) flakyEnv(t *testing.T, feature string) (d *device, stick string) {
	t.Helper()
	stick = l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2", Files: envBelow(flakyEnv.create(feature))}))
	d = l.start(t)
	// A mount, for this boot only: after the next one nothing is above the partition.
	d.sh(flakyEnv.create("") + " && printf '" + mappedEnv + "' >/run/fw_env.config && mount --bind /run/fw_env.config /etc/fw_env.config")
	return d, stick
}

// TestDataFails: the data partition takes no more writes. What cannot be recorded
// is not armed, and the device says so; when the partition is well again, the
// next stick installs.
func TestDataFails(t *testing.T) {
	t.Parallel()
	d, stick := newLab(t).flakyData(t)
	d.fault(flakyData, "error_writes")
	d.plug("first", stick)
	d.says("state-failed (43)")
	d.idle()
	d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
	d.fault(flakyData, "")
	d.sh("umount /data && mount /dev/mapper/data /data")
	d.want("usb-updater status", "release-1", "slot A", "steady")
	d.pull("first")
	d.installs(stick)
}

// installs plugs the stick with release-2 in, and waits until the device has
// committed it.
func (d *device) installs(stick string) {
	d.t.Helper()
	d.plug("good", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.says("ok (0)")
	d.login()
	d.want("usb-updater status", "release-2", "slot B", "steady")
}

// TestDataForgets: the data partition says that it has written and has not, so
// that after the reboot no record explains the trial. It is judged like any other.
// What the stick holds is not known to be what runs, so it is installed once more,
// and recorded, and not again.
func TestDataForgets(t *testing.T) {
	t.Parallel()
	d, stick := newLab(t).flakyData(t)
	d.fault(flakyData, "drop_writes")
	d.plug("stick", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.says("ok (0)")
	d.says(`installing "release-2" to slot A`)
	d.expect("MENDER boots slot 2 trial 1")
	d.says("ok (0)")
	d.says("up-to-date (11)")
	d.login()
	d.want("usb-updater status", "release-2", "slot A", "steady")
}

// TestEnvironmentFails: the boot environment takes no writes, or says that it has
// written and has not. What cannot be armed is told, and nothing waits for a
// reboot; when the environment is well again, the next stick installs. From the new
// release it takes no writes either.
func TestEnvironmentFails(t *testing.T) {
	t.Parallel()
	d, stick := newLab(t).flakyEnv(t, "error_writes")
	for _, feature := range []string{"error_writes", "drop_writes"} {
		d.fault(flakyEnv, feature)
		d.plug(feature, stick)
		d.says("boot-env-failed (41)")
		d.idle()
		d.fault(flakyEnv, "")
		d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
		d.want("usb-updater status", "release-1", "slot A", "steady")
		d.pull(feature)
		d.gone()
	}
	d.isNotCommitted(stick)
}

// TestCommitForgets: the boot environment forgets what the new release writes.
func TestCommitForgets(t *testing.T) {
	t.Parallel()
	d, stick := newLab(t).flakyEnv(t, "drop_writes")
	d.isNotCommitted(stick)
}

// isNotCommitted plugs the stick with release-2 in, whose boot environment fails.
// What cannot be committed goes back: the boot loader does it, and the old system
// tells.
func (d *device) isNotCommitted(stick string) {
	d.t.Helper()
	d.plug("stick", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.says("boot-env-failed (41)")
	d.expect("MENDER boots slot 2 trial 0")
	d.says("trial-failed (51)")
	d.login()
	d.want("usb-updater status", "release-1", "slot A", "steady")
}
