package sim

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Device is a simulated device.
type Device struct {
	Dir    string // its root directory: what --root gets
	loader string // "" is U-Boot with Mender's variables
	boots  int
	undo   []func() error
}

// Slots are the partition numbers of slots A and B.
var Slots = [2]int{2, 3}

// Options of a new device.
type Options struct {
	SlotSize int64 // bytes
	// Loop puts the slots on loop devices, which needs root.
	Loop bool
	// Backing is the directory for the files behind them; "" is the device's own.
	Backing    string
	DeviceType string
}

// New makes a device in the directory dir. Its slots are empty and it is off.
func New(dir string, opts Options) (*Device, error) {
	d := &Device{Dir: dir}
	for _, sub := range []string{"dev", "etc", "proc/sys/kernel/random", "run", "var/lib/mender", "var/lock"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	for _, n := range Slots {
		if err := d.makeSlot(n, opts); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	disk, err := os.Create(d.disk())
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := errors.Join(disk.Truncate(envDiskSize), disk.Close()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	err = os.WriteFile(filepath.Join(dir, "var/lib/mender/device_type"), []byte("device_type="+opts.DeviceType+"\n"), 0o600)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, d.Shipped()
}

// makeSlot makes the partition file, or a node for a loop device over one.
func (d *Device) makeSlot(n int, opts Options) error {
	path := d.Slot(n)
	if !opts.Loop {
		return makeFile(path, opts.SlotSize)
	}
	backing := filepath.Join(cmp.Or(opts.Backing, d.Dir), fmt.Sprintf("slot-%d", n))
	if err := makeFile(backing, opts.SlotSize); err != nil {
		return err
	}
	loop, err := Attach(backing)
	if err != nil {
		return err
	}
	d.undo = append(d.undo, func() error { return Detach(loop) })
	return cloneNode(loop, path)
}

func makeFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// Attach makes a loop device over a file.
func Attach(path string) (string, error) {
	out, err := exec.Command(Tool("losetup"), "--find", "--show", path).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("losetup %s: %w: %s", path, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// Detach ends a loop device.
func Detach(loop string) error {
	if out, err := exec.Command(Tool("losetup"), "--detach", loop).CombinedOutput(); err != nil {
		return fmt.Errorf("losetup --detach %s: %w: %s", loop, err, out)
	}
	return nil
}

// Tool finds a program of the administrator's, whose directory a user's PATH
// may lack.
func Tool(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return filepath.Join("/usr/sbin", name)
}

// Close gives back what the device holds of the machine.
func (d *Device) Close() error {
	var err error
	for _, undo := range d.undo {
		err = errors.Join(err, undo())
	}
	d.undo = nil
	return err
}

// Slot is the path of the partition with that number.
func (d *Device) Slot(n int) string { return filepath.Join(d.Dir, "dev", "mmcblk0p"+strconv.Itoa(n)) }

// Data is the data directory that both slots share.
func (d *Device) Data() string { return filepath.Join(d.Dir, "var/lib/mender") }

func (d *Device) disk() string { return filepath.Join(d.Dir, "dev/mmcblk0") }

// Shipped puts the environment into the state of a new device: slot A, no
// trial, both copies good.
func (d *Device) Shipped() error {
	vars := map[string]string{
		"mender_boot_part": "2", "mender_boot_part_hex": "2", "upgrade_available": "0", "bootcount": "0", "bootlimit": "1",
		"mender_check_saveenv_canary": "1", "mender_saveenv_canary": "1", "vendor_serial": "keep me",
	}
	return errors.Join(writeEnv(d.disk(), vars, 1, envOffset1), writeEnv(d.disk(), vars, 0, envOffset2))
}

// Env returns the variables that the boot loader would see.
func (d *Device) Env() (map[string]string, error) {
	if d.loader != "" {
		return d.loaderEnv()
	}
	vars, _, _, err := readEnv(d.disk())
	return vars, err
}

// SetEnv changes variables as the boot loader's saveenv does.
func (d *Device) SetEnv(change map[string]string) error {
	vars, flag, other, err := readEnv(d.disk())
	if err != nil {
		return err
	}
	maps.Copy(vars, change)
	return writeEnv(d.disk(), vars, flag+1, other)
}

// Flash writes an image to a slot, as the factory does.
func (d *Device) Flash(n int, image string) error {
	in, err := os.Open(image)
	if err != nil {
		return err
	}
	defer in.Close() // read only
	out, err := os.OpenFile(d.Slot(n), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// maxBoots ends a boot loop of the model.
const maxBoots = 5

// Boot turns the device on, or reboots it, and returns the slot that comes up.
// A slot that does not hold a root file system makes the watchdog reset, as on
// a real device.
func (d *Device) Boot() (int, error) {
	for range maxBoots {
		n, err := d.chooseSlot()
		if err != nil {
			return 0, err
		}
		d.boots++
		if err := d.bringUp(n); err == nil {
			return n, nil
		}
	}
	return 0, errors.New("the device does not come up")
}

// chooseSlot is the boot loader.
func (d *Device) chooseSlot() (int, error) {
	if d.loader != "" {
		return d.loaderBoot()
	}
	env, err := d.Env()
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(env["mender_boot_part"])
	if err != nil {
		return 0, fmt.Errorf("mender_boot_part: %w", err)
	}
	if env["upgrade_available"] != "1" {
		return n, nil
	}
	count, err := strconv.Atoi(env["bootcount"])
	if err != nil {
		return 0, fmt.Errorf("bootcount: %w", err)
	}
	limit, err := strconv.Atoi(env["bootlimit"])
	if err != nil {
		return 0, fmt.Errorf("bootlimit: %w", err)
	}
	count++
	if count <= limit {
		return n, d.SetEnv(map[string]string{"bootcount": strconv.Itoa(count)})
	}
	back := Slots[0] + Slots[1] - n
	return back, d.SetEnv(map[string]string{
		"mender_boot_part": strconv.Itoa(back), "mender_boot_part_hex": fmt.Sprintf("%X", back),
		"upgrade_available": "0", "bootcount": strconv.Itoa(count),
	})
}

// bringUp is kernel and init: it makes the directory look like the slot.
func (d *Device) bringUp(n int) error {
	for _, volatile := range []string{"etc", "run"} {
		if err := os.RemoveAll(filepath.Join(d.Dir, volatile)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(d.Dir, "run"), 0o755); err != nil {
		return err
	}
	out, err := exec.Command(Tool("debugfs"), "-R", "rdump /etc "+d.Dir, d.Slot(n)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("debugfs: %w: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(d.Dir, "etc/mender/artifact_info")); err != nil {
		return fmt.Errorf("slot %d does not boot: %w", n, err)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(d.Dir, "proc/cmdline"), fmt.Appendf(nil, "console=ttyS0 root=/dev/mmcblk0p%d ro\n", n), 0o600),
		os.WriteFile(filepath.Join(d.Dir, "proc/sys/kernel/random/boot_id"), fmt.Appendf(nil, "boot-%d\n", d.boots), 0o600),
	)
}

// Clone copies the device, with all that is on it, to the directory dir. Slots
// must be files.
func (d *Device) Clone(dir string) (*Device, error) {
	if len(d.undo) > 0 {
		return nil, errors.New("clone: the slots are on loop devices")
	}
	err := filepath.WalkDir(d.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(d.Dir, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(dir, name), info.Mode().Perm())
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), content, info.Mode().Perm())
	})
	if err != nil {
		return nil, fmt.Errorf("clone: %w", err)
	}
	return &Device{Dir: dir, loader: d.loader, boots: d.boots}, nil
}
