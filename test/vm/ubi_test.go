//go:build vm

package vm

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"

	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
)

// Flash of the device: a simulated NAND of 128 MiB with pages of 2 KiB in
// eraseblocks of 128 KiB. Three partitions of 8 blocks are for copies of boot
// environments, the rest is UBI's.
//
// Its content is gone when the machine is off, so that a boot is played: the
// slot is mounted and becomes the root directory of what runs.
const (
	nandsim  = "modprobe nandsim first_id_byte=0x20 second_id_byte=0xa1 third_id_byte=0x00 fourth_id_byte=0x15 parts=8,8,8"
	envSize  = 0x4000
	volumeMB = 24
)

// flashSlots is how a device keeps two slots in UBI volumes.
type flashSlots struct {
	parts   [2]string // as mender.conf names them
	volumes [2]string
	env     string // fw_env.config
	fs      string
	mount   [2]string // how a slot is mounted
}

// ubifsSlots are dynamic volumes with UBIFS, and copies of the environment in
// two MTD devices.
func ubifsSlots() flashSlots {
	return flashSlots{
		parts: [2]string{"ubi0_0", "/dev/ubi0_1"}, volumes: [2]string{"ubi0_0", "ubi0_1"}, fs: "ubifs",
		env:   fmt.Sprintf("/dev/mtd0 0x0 %#x 0x20000\n/dev/mtd1 0x0 %#x 0x20000\n", envSize, envSize),
		mount: [2]string{"mount -t ubifs ubi0:rootfsa", "mount -t ubifs ubi0_1"},
	}
}

// blockSlots are static volumes with ext4 on a block device of the kernel's, and
// both copies of the environment in one MTD device.
func blockSlots() flashSlots {
	return flashSlots{
		parts: [2]string{"ubi0_2", "ubi0_3"}, volumes: [2]string{"ubi0_2", "ubi0_3"}, fs: "ext4",
		env:   fmt.Sprintf("/dev/mtd2 0x0 %#x 0x20000\n/dev/mtd2 0x20000 %#x 0x20000\n", envSize, envSize),
		mount: [2]string{"mount -o ro /dev/ubiblock0_2", "mount -o ro /dev/ubiblock0_3"},
	}
}

// root makes the root file system of a release: its configuration, and a file
// of so many bytes. Programs are the machine's.
func (s flashSlots) root(t *testing.T, l *lab, release string, filler int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), release)
	for _, d := range []string{"usr", "dev", "proc", "sys", "run", "data", "tmp", "mnt", "m", "var/lib", "etc/mender"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/lib/mender": "/data/mender", "var/lock": "/run/lock",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	public, err := x509.MarshalPKIXPublicKey(&l.parts.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, filler)
	for i := range noise { // compresses like programs do
		noise[i] = byte(i * i >> 7 * (i & 3))
	}
	for name, content := range map[string]string{
		"etc/mender/key.pem":       string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		"etc/mender/mender.conf":   fmt.Sprintf(`{"RootfsPartA": %q, "RootfsPartB": %q, "ArtifactVerifyKey": "/etc/mender/key.pem"}`, s.parts[0], s.parts[1]),
		"etc/mender/artifact_info": "artifact_name=" + release + "\n",
		"etc/fw_env.config":        s.env,
		"filler":                   string(noise),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(l.dir, release+"."+s.fs)
	if s.fs == "ubifs" {
		err = run(t.Context(), "mkfs.ubifs", "-m", "2048", "-e", "126976", "-c", "400", "-x", "none", "-r", dir, "-o", image)
	} else {
		err = filesystem(t.Context(), image, int64(filler/mib+4), dir, "-t", "ext4", "-O", "^has_journal")
	}
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// flashDevice is a machine whose slots are in flash.
type flashDevice struct {
	*device
	s flashSlots
}

// at returns the same machine for a part of the test.
func (d flashDevice) at(t *testing.T) flashDevice {
	t.Helper()
	c := *d.device
	c.t = t
	return flashDevice{&c, d.s}
}

// enter plays a boot of the slot.
func (d flashDevice) enter(slot int) {
	d.t.Helper()
	d.sh("mkdir -p /run/root && " + d.s.mount[slot] + " /run/root && " +
		"for d in usr dev proc sys run; do mount --bind /$d /run/root/$d || exit; done && " +
		"mount --bind /run/stick /run/root/mnt && mount --bind /run/data-" + d.s.fs + " /run/root/data")
}

// leave ends what enter began.
func (d flashDevice) leave() {
	d.t.Helper()
	d.sh("for d in usr dev proc sys run mnt data; do umount /run/root/$d || exit; done; umount /run/root")
}

// in runs a command on the slot that was entered.
func (d flashDevice) in(command string) string { return "chroot /run/root " + command }

// digest returns the SHA-256 of the first bytes of a volume, as the kernel
// reads them.
func (d flashDevice) digest(volume string, size int64) string {
	d.t.Helper()
	return strings.Fields(d.sh(fmt.Sprintf("head -c %d /dev/%s | sha256sum", size, volume)))[0]
}

// refused runs an installation that must fail with these words, and leave
// volume and environment as they are.
func (d flashDevice) refused(volume string, size int64, artifact string, words ...string) {
	d.t.Helper()
	before := d.digest(volume, size)
	out := d.sh("! " + d.in("mender -install /mnt/"+artifact))
	for _, w := range words {
		if !strings.Contains(out, w) {
			d.t.Errorf("no %q in\n%s", w, out)
		}
	}
	if after := d.digest(volume, size); after != before {
		d.t.Error("the volume has changed")
	}
	d.want("cat /sys/class/ubi/"+volume+"/upd_marker", "0")
	d.want(d.in("fw_printenv"), "upgrade_available=0")
}

// timed prints how long a command takes.
func timed(command string) string {
	return "began=$(date +%s%N); " + command + "; r=$?; echo took $((($(date +%s%N)-began)/1000000)) ms; [ $r = 0 ]"
}

func fileDigest(t *testing.T, path string) (digest string, size int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), int64(len(b))
}

// artifactOf makes a signed artifact of an image, with a name that nobody takes
// for one on a stick.
func (l *lab) artifactOf(t *testing.T, release, image string) string {
	t.Helper()
	path := image + ".artifact"
	if err := l.parts.Artifact(path, release, image); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFlash: slots in UBI volumes, and boot environments in MTD devices.
func TestFlash(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	tier.VM.Need(t, "mkfs.ubifs")
	tool := filepath.Join(l.dir, "flash")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", tool, "./flash")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	flags := byte(1)
	env := map[string]string{"mender_boot_part": "0", "mender_boot_part_hex": "0", "upgrade_available": "0", "bootcount": "0", "serial": "4711"}
	files := []string{tool}
	put := func(name string, content []byte) {
		path := filepath.Join(l.dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	for name, part := range map[string]string{"env-ubifs": "0", "env-ext4": "2"} {
		env["mender_boot_part"], env["mender_boot_part_hex"] = part, part
		image, err := bootenvtest.EncodeImage(env, envSize, &flags)
		if err != nil {
			t.Fatal(err)
		}
		put(name, image)
	}
	dynamic, static := ubifsSlots(), blockSlots()
	first, second, third := dynamic.root(t, l, "release-1", 4*mib), dynamic.root(t, l, "release-2", 12*mib), dynamic.root(t, l, "release-3", 14*mib)
	firstBlock, secondBlock := static.root(t, l, "release-1", 4*mib), static.root(t, l, "release-2", 12*mib)
	large := filepath.Join(l.dir, "large")
	if err := truncate(large, volumeMB*mib+mib); err != nil {
		t.Fatal(err)
	}
	files = append(files, first, firstBlock, second, l.artifactOf(t, "release-2", second), l.artifactOf(t, "release-3", third),
		l.artifactOf(t, "release-2", secondBlock), l.artifactOf(t, "release-9", large))
	stick := l.stick(t, "ext4", files...)

	d := l.start(t)
	d.plug("stick", stick)
	d.sh("until mount -o ro /dev/sda /run/stick 2>/dev/null; do mkdir -p /run/stick; sleep 0.1; done")
	d.sh(nandsim + " && modprobe ubi && modprobe ubifs && /run/stick/flash attach 3")
	for _, v := range []string{"rootfsa 24 dynamic", "rootfsb 24 dynamic", "blocka 24 static", "blockb 24 static"} {
		d.sh("/run/stick/flash volume /dev/ubi0 " + v)
	}
	d.sh("cd /run/stick && ./flash write /dev/ubi0_0 release-1.ubifs && ./flash write /dev/ubi0_1 release-1.ubifs && " +
		"./flash write /dev/ubi0_2 release-1.ext4 && ./flash write /dev/ubi0_3 release-1.ext4 && ./flash block /dev/ubi0_2; cd /")
	d.sh("for m in mtd0 mtd1; do dd if=/run/stick/env-ubifs of=/dev/$m; done; for at in 0 8; do dd if=/run/stick/env-ext4 of=/dev/mtd2 bs=16384 seek=$at; done")
	d.sh("for f in ubifs ext4; do mkdir -p /run/data-$f/mender && cp /data/mender/device_type /run/data-$f/mender/; done")

	u := flashDevice{d, dynamic}
	u.enter(0)
	d.want(u.in("usb-updater doctor || true"), "ubi0:rootfsa", "fw_printenv")
	_, size := fileDigest(t, first)
	t.Run("too large", func(t *testing.T) {
		u.at(t).refused("ubi0_1", size, "large.artifact", "larger than the partition", "/dev/ubi0_1")
	})
	t.Run("mounted", func(t *testing.T) {
		u := u.at(t)
		u.sh("mount -t ubifs -o ro ubi0:rootfsb /run/root/m && { sleep 1000 </run/root/m/filler & }")
		u.refused("ubi0_1", size, "release-2.ubifs.artifact", "partition is mounted on /m")
		u.sh("kill $! && wait; umount /run/root/m")
	})
	t.Run("mounted where nobody sees it", func(t *testing.T) {
		u := u.at(t)
		u.sh("mount -t ubifs -o ro ubi0_1 /srv")
		u.refused("ubi0_1", size, "release-2.ubifs.artifact", "open slot /dev/ubi0_1: device or resource busy")
		u.sh("umount /srv")
	})
	t.Run("open elsewhere", func(t *testing.T) {
		u := u.at(t)
		u.sh("exec 3</dev/ubi0_1")
		u.refused("ubi0_1", size, "release-2.ubifs.artifact", "write slot /dev/ubi0_1 offset 0: start the update of the volume: device or resource busy")
		u.sh("exec 3<&-")
	})
	t.Run("install and commit", func(t *testing.T) {
		u := u.at(t)
		t.Log(u.sh(timed("/run/stick/flash write /dev/ubi0_1 /run/stick/release-2.ubifs")), "for a bare volume update")
		u.update(1, "release-2", second)
	})
	t.Run("killed", func(t *testing.T) {
		u := u.at(t) // slot B runs now
		u.sh("chroot /run/root mender -install /mnt/release-3.ubifs.artifact >/run/install.log 2>&1 &\n" +
			"until [ $(cat /sys/class/ubi/ubi0_0/upd_marker) = 1 ]; do kill -0 $! || exit; done; kill -9 $!; wait; true")
		u.want("cat /sys/class/ubi/ubi0_0/upd_marker", "1")
		u.sh("! head -c 1 /dev/ubi0_0 && ! mount -t ubifs ubi0_0 /srv")
		u.want(u.in("fw_printenv"), "upgrade_available=0", "mender_boot_part=1")
		u.want(u.in("mender show-artifact"), "release-2")
		u.update(0, "release-3", third)
	})
	t.Run("in the sandbox", func(t *testing.T) { u.at(t).sandbox(second) })
	u.leave()

	t.Run("static volumes", func(t *testing.T) {
		b := flashDevice{d, static}.at(t)
		b.enter(0)
		b.want(b.in("usb-updater doctor || true"), "block device", "fw_printenv")
		b.update(1, "release-2", secondBlock)
		b.want("cat /sys/class/ubi/ubi0_3/corrupted", "0")
		b.leave()
	})
}

// sandbox installs onto slot B in the sandbox of the agent's unit: raw flash is
// among its devices, and it has the capability for a volume update.
func (d flashDevice) sandbox(image string) {
	d.t.Helper()
	digest, size := fileDigest(d.t, image)
	d.sh("mkdir -p /run/systemd/system && { echo [Service]; echo Type=oneshot; echo RootDirectory=/run/root; echo ExecStart=/usr/bin/mender -install /mnt/" + filepath.Base(image) + ".artifact; " +
		"grep -E '^(Capability|NoNew|Restrict|Device|Protect|Private|ReadWrite|SystemCall|Lock|MemoryDeny|IPAddress|UMask)' /usr/lib/systemd/system/usb-updater@.service | " +
		`sed '/^ReadWrite/s#\([= ]-*\)/#\1+/#g'; ` + // paths are to be below RootDirectory
		"} >/run/systemd/system/flash.service")
	d.sh("mkdir -p /run/systemd/system/flash.service.d && printf '[Service]\nCapabilityBoundingSet=~CAP_SYS_RESOURCE\n' >/run/systemd/system/flash.service.d/less.conf")
	d.sh("systemctl daemon-reload && ! systemctl start flash.service")
	d.want("journalctl -u flash.service --no-pager -o cat", "start the update of the volume: operation not permitted")
	d.want(d.in("fw_printenv"), "upgrade_available=0", "mender_boot_part=0")
	d.sh("rm -r /run/systemd/system/flash.service.d && systemctl daemon-reload")
	d.sh("systemctl start flash.service || { journalctl -u flash.service --no-pager -o cat; false; }")
	if got := d.digest("ubi0_1", size); got != digest {
		d.t.Errorf("the volume holds %s, want %s", got, digest)
	}
	d.want(d.in("fw_printenv"), "upgrade_available=1", "mender_boot_part=1")
}

// update installs onto the slot, plays the boot into it, and commits.
func (d flashDevice) update(slot int, release, image string) {
	d.t.Helper()
	volume := d.s.volumes[slot]
	number := strings.TrimPrefix(volume, "ubi0_")
	digest, size := fileDigest(d.t, image)
	d.t.Log(d.sh(timed(d.in("mender -install /mnt/" + filepath.Base(image) + ".artifact"))))
	if got := d.digest(volume, size); got != digest {
		d.t.Errorf("the volume holds %s, want %s", got, digest)
	}
	d.want("cat /sys/class/ubi/"+volume+"/upd_marker", "0")
	d.want(d.in("fw_printenv"), "upgrade_available=1", "mender_boot_part="+number, "bootcount=0", "serial=4711")
	if d.s.fs == "ext4" {
		d.sh("/run/stick/flash block /dev/" + volume)
	}
	d.leave()
	d.enter(slot)
	d.want(d.in("mender -commit"))
	d.want(d.in("fw_printenv"), "upgrade_available=0", "mender_boot_part="+number, "serial=4711")
	d.want(d.in("mender show-artifact"), release)
}
