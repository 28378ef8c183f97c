//go:build vm

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/test/tier"
)

// stepTimeout bounds each wait for the device: a boot, an installation.
const stepTimeout = 5 * time.Minute

// built has the parts, made once in a run.
var built = sync.OnceValues(func() (*Parts, error) { return Build(context.Background(), "../../.cache/vm", "../../bin") })

// shared are files that many tests use, made once in a run.
var shared = struct {
	sync.Mutex
	dir  string
	made map[string]func() error
}{made: map[string]func() error{}}

func TestMain(m *testing.M) {
	m.Run()
	if err := os.RemoveAll(shared.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// once returns the path of the shared file of that name.
func once(t *testing.T, name string, make func(path string) error) string {
	t.Helper()
	shared.Lock()
	var err error
	if shared.dir == "" {
		shared.dir, err = os.MkdirTemp("", "vm") //nolint:usetesting // it outlives the test
	}
	path := filepath.Join(shared.dir, name)
	made := shared.made[name]
	if made == nil {
		made = sync.OnceValue(func() error { return make(path) })
		shared.made[name] = made
	}
	shared.Unlock()
	if err == nil {
		err = made()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// lab has what the devices of a test are made of.
type lab struct {
	loader  BootLoader
	parts   *Parts
	release Release // that its devices run at first
	dir     string
}

// newLab returns a lab of devices with U-Boot that run release-1.
func newLab(t *testing.T) *lab {
	t.Helper()
	return newLabWith(t, UBoot)
}

func newLabWith(t *testing.T, loader BootLoader) *lab {
	t.Helper()
	needDevice(t)
	parts, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return &lab{loader: loader, parts: parts, dir: t.TempDir(), release: Release{Name: "release-1"}}
}

// needDevice skips the test, or with REQUIRE=vm fails it, where something is
// missing that the virtual device is made of or with.
func needDevice(t *testing.T) {
	t.Helper()
	tier.VM.Need(t, "root", "qemu-system-x86_64", "mmdebstrap", "mkimage", "grub-mkimage", "sgdisk", "mke2fs", "debugfs", "mkfs.vfat",
		"mkfs.exfat", "mcopy", "xorriso", "cpio", "modprobe", "/usr/lib/u-boot/qemu-x86/u-boot.rom", "/usr/lib/grub/i386-pc/boot.img")
}

// image makes the root file system of a release.
func (l *lab) image(t *testing.T, r Release) string {
	t.Helper()
	path := filepath.Join(l.dir, r.Name+".ext4")
	if err := l.parts.Image(t.Context(), path, l.loader, r); err != nil {
		t.Fatal(err)
	}
	return path
}

// release2 makes a signed artifact of a release that nothing is special about.
func (l *lab) release2(t *testing.T) string {
	t.Helper()
	dir := once(t, l.loader.String()+"-release-2", func(dir string) error {
		image := filepath.Join(dir, "image")
		return errors.Join(
			os.Mkdir(dir, 0o700),
			l.parts.Image(context.Background(), image, l.loader, Release{Name: "release-2"}),
			l.parts.Artifact(filepath.Join(dir, "release-2.mender"), "release-2", image),
		)
	})
	return filepath.Join(dir, "release-2.mender")
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

// stick makes the image of a stick that has room for a release.
func (l *lab) stick(t *testing.T, fsType string, files ...string) string {
	t.Helper()
	return l.sized(t, 96, fsType, files...)
}

// small makes the image of a small stick.
func (l *lab) small(t *testing.T, fsType string, files ...string) string {
	t.Helper()
	return l.sized(t, 8, fsType, files...)
}

func (l *lab) sized(t *testing.T, size int64, fsType string, files ...string) string {
	t.Helper()
	path := l.file(t)
	if err := Stick(t.Context(), path, fsType, size, files...); err != nil {
		t.Fatal(err)
	}
	return path
}

// partitioned makes the image of a stick with small sticks as partitions.
func (l *lab) partitioned(t *testing.T, images ...string) string {
	t.Helper()
	path := l.file(t)
	if err := Partitioned(t.Context(), path, 8, images...); err != nil {
		t.Fatal(err)
	}
	return path
}

// file returns the path of a new file.
func (l *lab) file(t *testing.T) string {
	t.Helper()
	f, err := os.CreateTemp(l.dir, "stick")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// device is a machine in a test.
type device struct {
	t   *testing.T
	m   *Machine
	cfg Config
}

// start returns a device that has booted release-1 and has come to rest. It is
// booted once in a run, and each device goes on from there.
func (l *lab) start(t *testing.T) *device {
	t.Helper()
	kept := once(t, l.loader.String()+"-booted", func(dir string) error {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		return l.boot(dir)
	})
	dir := l.machineDir(t)
	cfg := l.machine(dir)
	cfg.State = filepath.Join(kept, "state")
	if err := run(t.Context(), "cp", "--sparse=always", filepath.Join(kept, "disk"), cfg.Disk); err != nil {
		t.Fatal(err)
	}
	return l.power(t, cfg)
}

// boot keeps the disk and the state of a device that has come to rest.
func (l *lab) boot(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	image, cfg := filepath.Join(dir, "image"), l.machine(dir)
	if err := l.parts.Image(ctx, image, l.loader, l.release); err != nil {
		return err
	}
	if err := l.parts.Disk(ctx, cfg.Disk, l.loader, image); err != nil {
		return err
	}
	m, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	err = m.Login(ctx)
	if err == nil {
		_, _, err = m.Run(ctx, "systemctl is-system-running --wait")
	}
	if err != nil {
		return errors.Join(err, m.PowerOff())
	}
	return m.Suspend(filepath.Join(dir, "state"))
}

// machine describes a machine whose files are in the directory.
func (l *lab) machine(dir string) Config {
	return Config{Dir: dir, Disk: filepath.Join(dir, "disk"), Firmware: l.parts.Firmware(l.loader)}
}

// config describes a new device that runs the lab's release and has never been
// switched on.
func (l *lab) config(t *testing.T) Config {
	t.Helper()
	cfg := l.machine(l.machineDir(t))
	if err := l.parts.Disk(t.Context(), cfg.Disk, l.loader, l.image(t, l.release)); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// machineDir makes a directory for a machine: its socket's path is short, and
// if the test fails it is kept, with the log of the console.
func (l *lab) machineDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vm") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of the console is in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// power switches a machine on, for as long as the test runs.
func (l *lab) power(t *testing.T, cfg Config) *device {
	t.Helper()
	d := &device{t: t, cfg: cfg}
	d.on()
	t.Cleanup(func() {
		if t.Failed() {
			d.journal()
		}
		d.off()
	})
	return d
}

// on switches the machine on.
func (d *device) on() {
	d.t.Helper()
	var err error
	if d.m, err = Start(d.t.Context(), d.cfg); err != nil {
		d.t.Fatal(err)
	}
}

// off cuts the power.
func (d *device) off() {
	d.t.Helper()
	if err := d.m.PowerOff(); err != nil {
		d.t.Error(err)
	}
}

// journal keeps the journal of a device whose test has failed, if its shell
// answers.
func (d *device) journal() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := d.m.Login(ctx)
	if err == nil {
		var text string
		text, _, err = d.m.Run(ctx, "journalctl -b --no-pager -o short-monotonic; systemctl list-jobs --no-pager; lsblk")
		err = errors.Join(err, os.WriteFile(filepath.Join(d.cfg.Dir, "journal.log"), []byte(text), 0o600))
	}
	if err != nil {
		d.t.Logf("the journal of the device: %v", err)
	}
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

// reboot has the device reboot itself. Its shell may be gone before it could tell
// that the command has ended.
func (d *device) reboot() {
	d.t.Helper()
	if err := d.m.Send("systemctl reboot"); err != nil {
		d.t.Fatal(err)
	}
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

// says waits until the agent says the words on the console, after those of the
// last call.
func (d *device) says(words string) {
	d.t.Helper()
	d.expect(`usb-updater: [^\n]*` + regexp.QuoteMeta(words))
}

// in returns the device for a part of its test.
func (d *device) in(t *testing.T) *device {
	t.Helper()
	return &device{t: t, m: d.m, cfg: d.cfg}
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

// pull takes a stick out.
func (d *device) pull(id string) {
	d.t.Helper()
	if err := d.m.Pull(id); err != nil {
		d.t.Fatal(err)
	}
}

// both runs a test on devices with U-Boot and with GRUB.
func both(t *testing.T, test func(t *testing.T, l *lab)) {
	t.Helper()
	t.Parallel()
	for _, loader := range []BootLoader{UBoot, GRUB} {
		t.Run(loader.String(), func(t *testing.T) {
			t.Parallel()
			test(t, newLabWith(t, loader))
		})
	}
}

// plugDisk puts a disk into the device as /dev/vdb, on which no stick may be.
func (d *device) plugDisk(image string) {
	d.t.Helper()
	if err := d.m.PlugDisk("files", image); err != nil {
		d.t.Fatal(err)
	}
	d.sh("until test -b /dev/vdb; do sleep 0.1; done")
}

func (d *device) plugWritable(id, image string) {
	d.t.Helper()
	if err := d.m.PlugWritable(id, image); err != nil {
		d.t.Fatal(err)
	}
}

// idle waits until no run is left that a stick has started.
func (d *device) idle() {
	d.t.Helper()
	d.sh("while systemctl is-active -q 'usb-updater@*' || systemctl list-jobs | grep -q usb-updater@; do sleep 0.2; done")
}

// gone waits until the device has forgotten all sticks.
func (d *device) gone() {
	d.t.Helper()
	d.sh("while ls /dev/sd* >/dev/null 2>&1; do sleep 0.2; done")
	d.idle()
}

// exfat makes the image of a small stick with exFAT and has the device copy a
// file onto it that is on its disk with vfat.
func (d *device) exfat(disk, file string) string {
	d.t.Helper()
	path := filepath.Join(d.cfg.Dir, "exfat")
	if err := Stick(d.t.Context(), path, "exfat", 8); err != nil {
		d.t.Fatal(err)
	}
	d.plugWritable("exfat", path)
	d.says("no-artifact (10)")
	d.sh("mkdir -p /run/from /run/to && mount -t vfat -o ro " + disk + " /run/from && mount -t exfat /dev/sd? /run/to && cp /run/from/" + file + " /run/to && umount /run/from /run/to")
	d.pull("exfat")
	d.gone()
	return path
}
