//go:build vm

package vm

import "testing"

// flakeyTable is a table of the kernel's dm-flakey, in the guest's shell: the data
// partition, with a feature that makes it fail, or well with "".
func flakeyTable(feature string) string {
	upAndDown := "1 0"
	if feature != "" {
		upAndDown = "0 1 1 " + feature
	}
	return `--table "0 $(blockdev --getsz /dev/vda4) flakey /dev/vda4 0 ` + upAndDown + `"`
}

// flakey returns a device that runs release-1 and whose data partition is behind
// dm-flakey, and a stick with release-2.
func (l *lab) flakey(t *testing.T) (d *device, stick string) {
	t.Helper()
	stick = l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2"}))
	d = l.start(t)
	d.settled()
	d.sh("modprobe dm-flakey && umount /data && dmsetup create data " + flakeyTable("") + " && mount /dev/mapper/data /data")
	return d, stick
}

// fault makes the data partition fail from now on; "" makes it well.
func (d *device) fault(feature string) {
	d.t.Helper()
	d.sh("dmsetup suspend --nolockfs data && dmsetup reload data " + flakeyTable(feature) + " && dmsetup resume data")
}

// TestDataFails: the data partition takes no more writes. What cannot be recorded
// is not armed, and the device says so; when the partition is well again, the
// next stick installs.
func TestDataFails(t *testing.T) {
	t.Parallel()
	d, stick := newLab(t).flakey(t)
	d.fault("error_writes")
	d.plug("first", stick)
	d.says("state-failed (43)")
	d.idle()
	d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
	d.fault("")
	d.sh("umount /data && mount /dev/mapper/data /data")
	d.want("usb-updater status", "release-1", "slot A", "steady")
	d.pull("first")
	d.plug("second", stick)
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
	d, stick := newLab(t).flakey(t)
	d.fault("drop_writes")
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
