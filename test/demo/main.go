// Command demo shows the main job end to end: a stick is plugged into a
// simulated A/B device, which updates itself, reboots, checks itself, and
// commits, or goes back. It runs the real programs and checks each step; what
// is simulated is the device around them.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/test/sim"
)

const (
	slotSize   = 48 << 20
	imageSize  = 32 << 20
	stickSize  = 64 << 20
	deviceType = "demo-board"
)

func main() {
	programs := flag.String("bin", "bin", "directory of mender and usb-updater")
	keep := flag.Bool("keep", false, "keep the simulated device")
	noLoop := flag.Bool("no-loop", false, "use plain files even as root")
	flag.Parse()
	if err := run(*programs, *keep, os.Getuid() == 0 && !*noLoop); err != nil {
		fmt.Fprintln(os.Stderr, "demo: FAILED:", err)
		os.Exit(1)
	}
}

// demo is the state of the show.
type demo struct {
	programs string
	work     string
	loop     bool
	device   *sim.Device
	key      *ecdsa.PrivateKey
	step     int
}

func run(programs string, keep, loop bool) (err error) {
	programs, err = filepath.Abs(programs)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "usb-updater-demo")
	if err != nil {
		return err
	}
	if keep {
		defer fmt.Println("\nThe simulated device is kept in", work) //nolint:forbidigo // the demo talks to a person
	} else {
		defer os.RemoveAll(work) // scratch
	}
	d := &demo{programs: programs, work: work, loop: loop}
	if d.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	d.device, err = sim.New(filepath.Join(work, "device"), sim.Options{SlotSize: slotSize, Loop: loop, DeviceType: deviceType})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.device.Close()) }()
	return d.play()
}

// play is the script.
func (d *demo) play() error {
	for _, act := range []func() error{
		d.factory, d.goodRelease, d.stickStaysIn, d.badRelease, d.failedStickStaysIn, d.deadRelease,
	} {
		if err := act(); err != nil {
			return err
		}
	}
	d.say("\nDone. Three sticks, three releases: one was committed, two were rolled back, and the device ran at every moment.\n")
	return nil
}

func (d *demo) factory() error {
	medium := "plain files (run it as root for loop devices and a mounted stick)"
	if d.loop {
		medium = "loop devices and a mounted stick"
	}
	d.title("A device leaves the factory with release-1 in slot A")
	d.say("Slot A is partition 2, slot B is partition 3. U-Boot's environment, with two copies, says which one boots.\n"+
		"The device is simulated with %s; the programs are the real ones.\n", medium)
	image, err := d.image("release-1", "exit 0")
	if err != nil {
		return err
	}
	if err := d.device.Flash(2, image); err != nil {
		return err
	}
	if err := d.boot(2); err != nil {
		return err
	}
	return d.expect(0, "usb-updater", "status")
}

func (d *demo) goodRelease() error {
	d.title("Somebody plugs in a stick")
	d.say("On it: release-2, a release for another device, and one that nobody signed.\n")
	image, err := d.image("release-2", "echo all services are up")
	if err != nil {
		return err
	}
	stick, done, err := d.stick(map[string]artifacttest.Spec{
		"release-2.mender": d.release("release-2", image),
		"other.mender":     {Name: "release-9", DeviceTypes: []string{"other-board"}, Files: d.file(image), Signer: d.key},
		"unsigned.mender":  {Name: "release-3", DeviceTypes: []string{deviceType}, Files: d.file(image)},
	})
	if err != nil {
		return err
	}
	defer done()
	d.say("What would the device do, and why?\n")
	if err := d.expect(0, "usb-updater", "list", stick); err != nil {
		return err
	}
	d.say("udev starts this on the real device:\n")
	if err := d.expect(0, "usb-updater", "run", stick); err != nil {
		return err
	}
	if err := d.sameBytes(3, image); err != nil {
		return err
	}
	if err := d.wantEnv("mender_boot_part=3", "upgrade_available=1", "bootcount=0"); err != nil {
		return err
	}
	d.title("The device reboots into slot B, on trial")
	if err := d.boot(3); err != nil {
		return err
	}
	if err := d.wantEnv("upgrade_available=1", "bootcount=1"); err != nil {
		return err
	}
	d.say("A unit runs the health checks of the new release and commits:\n")
	if err := d.expect(0, "usb-updater", "boot-check"); err != nil {
		return err
	}
	if err := d.wantEnv("mender_boot_part=3", "upgrade_available=0"); err != nil {
		return err
	}
	return d.wantName("release-2")
}

func (d *demo) stickStaysIn() error {
	d.title("The stick is still in")
	d.say("The device knows the artifact by its content. It does not install it again.\n")
	stick := filepath.Join(d.work, "stick-1")
	stick, done, err := d.mounted(stick)
	if err != nil {
		return err
	}
	defer done()
	return d.expect(11, "usb-updater", "run", stick)
}

func (d *demo) badRelease() error {
	d.title("Another stick, with a release whose health check fails")
	image, err := d.image("release-3", "echo the database does not start; exit 7")
	if err != nil {
		return err
	}
	stick, done, err := d.stick(map[string]artifacttest.Spec{"release-3.mender": d.release("release-3", image)})
	if err != nil {
		return err
	}
	defer done()
	if err := d.expect(0, "usb-updater", "run", stick); err != nil {
		return err
	}
	if err := d.sameBytes(2, image); err != nil {
		return err
	}
	d.say("It reboots into slot A, on trial.\n")
	if err := d.boot(2); err != nil {
		return err
	}
	if err := d.expect(50, "usb-updater", "boot-check"); err != nil {
		return err
	}
	if err := d.wantEnv("mender_boot_part=3", "upgrade_available=0"); err != nil {
		return err
	}
	d.say("It reboots, back into slot B, and tells why.\n")
	if err := d.boot(3); err != nil {
		return err
	}
	if err := d.expect(0, "usb-updater", "status"); err != nil {
		return err
	}
	return d.wantName("release-2")
}

func (d *demo) failedStickStaysIn() error {
	d.title("That stick is still in")
	d.say("The release failed on this device. It is not tried again, so there is no loop.\n")
	stick, done, err := d.mounted(filepath.Join(d.work, "stick-2"))
	if err != nil {
		return err
	}
	defer done()
	return d.expect(20, "usb-updater", "run", stick)
}

func (d *demo) deadRelease() error {
	d.title("A release that does not even boot")
	image := filepath.Join(d.work, "release-4.ext4")
	if err := os.WriteFile(image, []byte(strings.Repeat("no root file system ", 1<<14)), 0o600); err != nil {
		return err
	}
	stick, done, err := d.stick(map[string]artifacttest.Spec{"release-4.mender": d.release("release-4", image)})
	if err != nil {
		return err
	}
	defer done()
	if err := d.expect(0, "usb-updater", "run", stick); err != nil {
		return err
	}
	d.say("Slot A does not come up; the watchdog resets; the boot loader counts two boots and goes back to slot B.\n")
	if err := d.boot(3); err != nil {
		return err
	}
	if err := d.expect(51, "usb-updater", "boot-check"); err != nil {
		return err
	}
	return d.wantName("release-2")
}

// release describes a signed artifact.
func (d *demo) release(name, image string) artifacttest.Spec {
	return artifacttest.Spec{Name: name, DeviceTypes: []string{deviceType}, Files: d.file(image), Signer: d.key}
}

func (d *demo) file(image string) []artifacttest.File {
	info, err := os.Stat(image)
	if err != nil {
		return nil // the writer then refuses an artifact without payload
	}
	return []artifacttest.File{{
		Name: filepath.Base(image), Size: info.Size(),
		Open: func() (io.Reader, error) { return os.Open(image) },
	}}
}

// image makes the root file system of a release.
func (d *demo) image(name, check string) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(&d.key.PublicKey)
	if err != nil {
		return "", err
	}
	path := filepath.Join(d.work, name+".ext4")
	return path, sim.Release{Name: name, Files: map[string]sim.File{
		"etc/mender/mender.conf": {Content: `{"RootfsPartA": "/dev/mmcblk0p2", "RootfsPartB": "/dev/mmcblk0p3",
 "ArtifactVerifyKey": "/etc/mender/artifact-verify-key.pem"}
`, Mode: 0o644},
		"etc/mender/artifact-verify-key.pem":         {Content: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), Mode: 0o644},
		"etc/usb-updater/health.d/10-services":       {Content: "#!/bin/sh\n" + check + "\n", Mode: 0o755},
		"etc/usb-updater/usb-updater.conf":           {Content: "{\"Reboot\": \"auto\", \"HealthDeadlineSeconds\": 0}\n", Mode: 0o644},
		"usr/share/" + name + "/contents-of-" + name: {Content: strings.Repeat(name+"\n", 1<<16), Mode: 0o644},
	}}.Image(path, imageSize)
}

// stick makes a stick that holds the artifacts, and plugs it in.
func (d *demo) stick(artifacts map[string]artifacttest.Spec) (path string, unplug func(), err error) {
	n := 1
	for ; ; n++ {
		path = filepath.Join(d.work, fmt.Sprintf("stick-%d", n))
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", nil, err
	}
	for name, spec := range artifacts {
		f, err := os.Create(filepath.Join(path, name))
		if err != nil {
			return "", nil, err
		}
		if err := errors.Join(artifacttest.Write(f, spec), f.Close()); err != nil {
			return "", nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return d.mounted(path)
}

// mounted plugs a stick in: a directory as it is, or, as root, a loop device
// with a file system that holds the same files.
func (d *demo) mounted(dir string) (string, func(), error) {
	if !d.loop {
		return dir, func() {}, nil
	}
	image := dir + ".img"
	if _, err := os.Stat(image); err != nil {
		f, err := os.Create(image)
		if err != nil {
			return "", nil, err
		}
		if err := errors.Join(f.Truncate(stickSize), f.Close()); err != nil {
			return "", nil, err
		}
		if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-L", "STICK", "-d", dir, image).CombinedOutput(); err != nil {
			return "", nil, fmt.Errorf("mke2fs: %w: %s", err, out)
		}
	}
	loop, err := sim.Attach(image)
	if err != nil {
		return "", nil, err
	}
	return loop, func() {
		if err := sim.Detach(loop); err != nil {
			d.say("%v\n", err)
		}
	}, nil
}

// boot turns the device on and wants slot n to come up.
func (d *demo) boot(n int) error {
	got, err := d.device.Boot()
	if err != nil {
		return err
	}
	if got != n {
		return fmt.Errorf("slot on partition %d came up, want %d", got, n)
	}
	d.say("    boot loader: partition %d comes up\n", got)
	return nil
}

// expect runs one of the programs on the device and wants its exit code.
func (d *demo) expect(code int, program string, args ...string) error {
	d.say("  $ %s\n", strings.ReplaceAll(program+" "+strings.Join(args, " "), d.work+"/", ""))
	cmd := exec.Command(filepath.Join(d.programs, program), append([]string{"--root", d.device.Dir}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for lines.Scan() {
		d.say("    %s\n", strings.ReplaceAll(lines.Text(), d.work+"/", ""))
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return err
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		return fmt.Errorf("%s %s ended with %d, want %d", program, strings.Join(args, " "), got, code)
	}
	return nil
}

// wantEnv looks at the boot environment with the boot loader's eyes.
func (d *demo) wantEnv(want ...string) error {
	env, err := d.device.Env()
	if err != nil {
		return err
	}
	for _, w := range want {
		k, v, _ := strings.Cut(w, "=")
		if env[k] != v {
			return fmt.Errorf("boot environment: %s=%s, want %s", k, env[k], w)
		}
	}
	if env["vendor_serial"] != "keep me" {
		return errors.New("boot environment: a variable of somebody else's is lost")
	}
	d.say("    boot environment: %s\n", strings.Join(want, " "))
	return nil
}

// wantName asks mender what is installed.
func (d *demo) wantName(want string) error {
	cmd := exec.Command(filepath.Join(d.programs, "mender"), "--root", d.device.Dir, "show-artifact")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("mender show-artifact: %w", err)
	}
	if got := strings.TrimSpace(string(out)); got != want {
		return fmt.Errorf("mender show-artifact says %q, want %q", got, want)
	}
	d.say("    installed: %s\n", want)
	return nil
}

// sameBytes compares the beginning of a slot with an image.
func (d *demo) sameBytes(n int, image string) error {
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	want, err := sum(image, info.Size())
	if err != nil {
		return err
	}
	got, err := sum(d.device.Slot(n), info.Size())
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("partition %d does not hold %s", n, filepath.Base(image))
	}
	d.say("    partition %d holds the image: sha256 %.16s…\n", n, got)
	return nil
}

func sum(path string, n int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // read only
	h := sha256.New()
	if _, err := io.CopyN(h, f, n); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

func (d *demo) title(s string) {
	d.step++
	d.say("\n%d. %s\n", d.step, s)
}

func (d *demo) say(format string, args ...any) {
	fmt.Printf(format, args...) //nolint:forbidigo // the demo talks to a person
}
