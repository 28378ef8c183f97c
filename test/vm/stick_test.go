//go:build vm

package vm

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// TestStickPulled: a stick that is pulled out while it is read costs nothing,
// and the next one installs.
func TestStickPulled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	stick := l.stick(t, "vfat", l.release2(t))
	d := l.start(t)
	d.plug("first", stick)
	d.says("write")
	d.pull("first")
	d.says("stick-removed (33)")
	d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
	d.want("usb-updater status", "release-1", "slot A", "steady")
	d.plug("second", stick)
	d.expect("MENDER boots slot 3 trial 1")
	d.says("ok (0)")
	d.login()
	d.want("usb-updater status", "release-2", "slot B", "steady")
}

// TestStickAtPowerOn: the stick is there before the device is switched on.
func TestStickAtPowerOn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	stick := l.stick(t, "vfat", l.release2(t))
	cfg := l.config(t)
	cfg.Extra = []string{
		"-drive", "if=none,id=stick,file=" + stick + ",format=raw,readonly=on",
		"-device", "usb-storage,drive=stick,bus=xhci.0,removable=on",
	}
	d := l.power(t, cfg)
	d.expect("MENDER boots slot 2 trial 0")
	d.says(`installing "release-2" to slot B`)
	d.expect("MENDER boots slot 3 trial 1")
	d.says("ok (0)")
	d.says("up-to-date (11)")
	d.login()
	d.want("usb-updater status", "release-2", "slot B", "steady")
}

// TestTwoSticks: two sticks that come at once make one installation.
func TestTwoSticks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	artifact := l.release2(t)
	first, second := l.stick(t, "vfat", artifact), l.stick(t, "ext4", artifact)
	d := l.start(t)
	d.plug("first", first)
	d.plug("second", second)
	d.expect("MENDER boots slot 3 trial 1")
	d.says("ok (0)")
	d.says("up-to-date (11)")
	d.says("up-to-date (11)")
	d.login()
	d.want("usb-updater status", "release-2", "slot B", "steady")
	if n := strings.Count(d.m.Console(), "usb-updater: installing "); n != 1 {
		t.Errorf("the agent installed %d times, want once", n)
	}
}

// configArtifact makes an artifact of Mender's module single-file, which is installed
// without a reboot: it writes the text to /data/app/config.
func (l *lab) configArtifact(t *testing.T, name, deviceType, text string) string {
	t.Helper()
	path := filepath.Join(l.dir, name+".mender")
	spec := artifacttest.Spec{Name: name, PayloadType: "single-file", DeviceTypes: []string{deviceType}}
	for file, content := range map[string]string{"dest_dir": "/data/app\n", "filename": "config\n", "permissions": "0640\n", "config": text} {
		spec.Files = append(spec.Files, artifacttest.Bytes(file, []byte(content)))
	}
	if err := l.parts.artifact(path, spec); err != nil {
		t.Fatal(err)
	}
	return path
}

// singleFile is the update module of Debian's mender-client.
const singleFile = "/usr/share/mender/modules/v3/single-file"

// addModule copies the update module from the disk with vfat to where modules are.
func (d *device) addModule() {
	d.t.Helper()
	dir := filepath.Dir(singleFile)
	d.sh("mount -t vfat -o ro /dev/vdb /mnt && mkdir -p " + dir + " && cp /mnt/single-file " + dir + " && umount /mnt && chmod 0755 " + singleFile)
}

// TestSticks shows one device sticks of all kinds. Each has an artifact of an
// update module, which is installed without a reboot.
func TestSticks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	artifact := func(name string) string { return l.configArtifact(t, name, DeviceType, name) }
	d := l.start(t)
	d.plugDisk(l.small(t, "vfat", singleFile, artifact("config-5")))
	d.addModule()
	d.sh(`echo '{"Console": true, "WriteReport": true}' >/etc/usb-updater/usb-updater.conf`)

	for _, tt := range []struct {
		name, artifact string
		image          func() string
	}{
		{"vfat", "config-1", func() string { return l.small(t, "vfat", artifact("config-1")) }},
		{"ext4", "config-2", func() string { return l.small(t, "ext4", artifact("config-2")) }},
		{"iso9660", "config-3", func() string { return l.small(t, "iso9660", artifact("config-3")) }},
		{"the third of three partitions", "config-4", func() string {
			return l.partitioned(t, l.small(t, "ext4"), l.small(t, "vfat"), l.small(t, "vfat", artifact("config-4")))
		}},
		{"exfat", "config-5", func() string { return d.exfat("/dev/vdb", "config-5.mender") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			image := tt.image()
			d := d.in(t)
			d.plug("stick", image)
			d.says(fmt.Sprintf(`installing %q to module single-file`, tt.artifact))
			d.says("ok (0)")
			d.want("cat /data/app/config", tt.artifact)
			d.want("usb-updater status", tt.artifact)
			d.pull("stick")
			d.gone()
		})
	}

	t.Run("report", func(t *testing.T) {
		d := d.in(t)
		image := l.small(t, "vfat", l.configArtifact(t, "config-6", "another-device", "not for us"))
		d.plugWritable("stick", image)
		d.says("not-for-device (22)")
		d.idle()
		d.pull("stick")
		out, err := exec.CommandContext(t.Context(), "mtype", "-i", image, "::/usb-updater/"+DeviceType+"-1.txt").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "not-for-device (22)") || !strings.Contains(string(out), "config-6") {
			t.Errorf("the report on the stick: %v\n%s", err, out)
		}
		d.want("cat /data/app/config", "config-5")
		d.want("fw_printenv", "mender_boot_part=2", "upgrade_available=0")
	})
}

// TestComposite: a USB device that is a stick and a keyboard is refused, where
// the stick alone is not. The device plugs it into itself: a gadget on the
// kernel's dummy controller.
func TestComposite(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := l.start(t)
	d.plugDisk(l.small(t, "vfat", singleFile, l.configArtifact(t, "config-1", DeviceType, "config-1")))
	d.addModule()
	d.sh(gadget)
	d.sh("mkdir functions/hid.0 && echo 1 >functions/hid.0/protocol && echo 1 >functions/hid.0/subclass && echo 8 >functions/hid.0/report_length && " +
		`printf '\005\001\011\006\241\001\005\007\031\340\051\347\025\000\045\001\165\001\225\010\201\002\300' >functions/hid.0/report_desc`)
	d.sh("ln -s functions/hid.0 configs/c.1/ && echo dummy_udc.0 >UDC")
	d.says("stick-composite (34)")
	d.sh("echo >UDC")
	d.gone()
	d.sh("test ! -e /data/app/config")
	d.sh("rm configs/c.1/hid.0 && echo dummy_udc.0 >UDC")
	d.says(`installing "config-1" to module single-file`)
	d.says("ok (0)")
	d.want("cat /data/app/config", "config-1")
}

// gadget makes a USB device that is mass storage, and leaves the shell in its
// directory (source: the kernel's Documentation/usb/gadget_configfs.rst).
const gadget = `modprobe dummy_hcd && modprobe libcomposite && { test -d /sys/kernel/config/usb_gadget || mount -t configfs none /sys/kernel/config; } &&
mkdir /sys/kernel/config/usb_gadget/g && cd /sys/kernel/config/usb_gadget/g && echo 0x1d6b >idVendor && echo 0x0104 >idProduct &&
mkdir configs/c.1 functions/mass_storage.0 && echo 1 >functions/mass_storage.0/lun.0/ro && echo 1 >functions/mass_storage.0/lun.0/removable &&
echo /dev/vdb >functions/mass_storage.0/lun.0/file && ln -s functions/mass_storage.0 configs/c.1/`

// TestComesBack: two sticks with equal versions stay in, and do not take turns. One
// that is pulled out and plugged in again is a person's wish.
func TestComesBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first := l.stick(t, "vfat", l.release2(t))
	second := l.stick(t, "vfat", l.artifact(t, Release{Name: "2"}))
	d := l.start(t)
	d.plug("first", first)
	d.expect("MENDER boots slot 3 trial 1")
	d.says("ok (0)")
	d.says("up-to-date (11)")
	d.plug("second", second)
	d.says(`installing "2" to slot A`)
	d.expect("MENDER boots slot 2 trial 1")
	d.says("ok (0)")
	d.says("refused (20)")
	d.login()
	d.idle()
	d.want("usb-updater status", "runs      2, slot A", "steady")
	d.pull("first")
	d.plug("again", first)
	d.says(`installing "release-2" to slot B`)
}
