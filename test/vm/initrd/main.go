// Command initrd is the first program of the virtual device: it loads the
// modules that the root file system needs, mounts what root= names and hands
// over to its init. It exists because a tiny initrd starts seconds faster than
// a general one under emulation.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "initrd:", err)
	}
	// The kernel panics when its first program ends, and panic= resets the
	// device, as a watchdog would.
}

func run() error {
	for _, m := range []struct{ fs, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fs, m.dir, m.fs, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	root, err := rootParameter()
	if err != nil {
		return err
	}
	if err := mountRoot(root, "/root"); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(dir, "/root"+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return unix.Exec("/sbin/init", []string{"/sbin/init"}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"})
}

// loadModules loads the modules of the list, one path a line, in its order.
func loadModules(dir string) error {
	f, err := os.Open(dir + "/list")
	if err != nil {
		return err
	}
	defer f.Close() // read only
	for lines := bufio.NewScanner(f); lines.Scan(); {
		m, err := os.Open(dir + "/" + lines.Text())
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(m.Fd()), "", 0)
		_ = m.Close() // read only
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", lines.Text(), err)
		}
	}
	return nil
}

func rootParameter() (string, error) {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for word := range strings.FieldsSeq(string(b)) {
		if v, ok := strings.CutPrefix(word, "root="); ok {
			return v, nil
		}
	}
	return "", errors.New("no root= on the kernel command line")
}

// mountRoot waits for the device, which may take a moment to appear.
func mountRoot(device, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	const pause, limit = 10 * time.Millisecond, 10 * time.Second
	for waited := time.Duration(0); ; waited += pause {
		err := unix.Mount(device, dir, "ext4", 0, "")
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.ENOENT) || waited > limit {
			return fmt.Errorf("mount %s: %w", device, err)
		}
		time.Sleep(pause)
	}
}
