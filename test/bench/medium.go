package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/test/sim"
)

// medium is what the slot is on, and the stick that brings the artifact.
type medium struct {
	name  string
	slot  rates
	stick rates // of nothing: the artifact is in memory
}

func findMedium(name string) (medium, error) {
	stick := rates{read: 30e6, request: 100 * time.Microsecond}
	sd := rates{read: 80e6, write: 20e6, request: 300 * time.Microsecond, flush: 5 * time.Millisecond}
	sdz := sd
	sdz.zeroes = true
	emmc := rates{read: 150e6, write: 60e6, request: 150 * time.Microsecond, flush: 3 * time.Millisecond, zeroes: true}
	for _, m := range []medium{{name: "ram"}, {"sd20", sd, stick}, {"sd20z", sdz, stick}, {"emmc60", emmc, stick}} {
		if m.name == name {
			return m, nil
		}
	}
	return medium{}, fmt.Errorf("medium %q: want ram, sd20, sd20z or emmc60", name)
}

// blockDevice is a loop device over a file, which may be shown as slow.
type blockDevice struct {
	path string
	file string // in memory, past what makes it slow
	undo []func() error
}

// attach makes a block device over a file. What a device of its kind would
// keep of writes in memory is bounded, and so is what is read ahead.
func attach(ctx context.Context, file string, r rates) (*blockDevice, error) {
	d := &blockDevice{file: file}
	shown := file
	if r != (rates{}) {
		shown = file + ".slow"
		if err := os.WriteFile(shown, nil, 0o600); err != nil {
			return nil, err
		}
		undo, err := mountSlow(file, shown, r)
		if err != nil {
			return nil, err
		}
		d.undo = append(d.undo, undo)
	}
	loop, err := sim.Attach(shown)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.path = loop
	d.undo = append(d.undo, func() error { return sim.Detach(loop) })
	if shown == file {
		return d, nil
	}
	if err := d.bound(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if r.write > 0 && !r.zeroes { // the driver learns that from its first request
		err = command(ctx, "", "blkdiscard", "--zeroout", "--length", strconv.Itoa(mib), loop)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// bound sets the limits that a device with 256 MiB of memory would have.
func (d *blockDevice) bound() error {
	sys := filepath.Join("/sys/block", filepath.Base(d.path))
	set := func(name string, value int) error {
		return os.WriteFile(filepath.Join(sys, name), []byte(strconv.Itoa(value)), 0)
	}
	return errors.Join(set("bdi/strict_limit", 1), set("bdi/max_bytes", 32*mib), set("queue/read_ahead_kb", 128))
}

// fill gives the device the content of a file, and forgets what is cached. It
// takes no time of the medium.
func (d *blockDevice) fill(content string) error {
	if err := d.flush(); err != nil {
		return err
	}
	in, err := os.Open(content)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(d.file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, mib)) // writes zeros, too
	return errors.Join(err, out.Close(), d.flush())
}

// flush writes what the kernel holds back, and drops it.
func (d *blockDevice) flush() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0), f.Close())
}

// holes are the bytes of the file that were made zero by command.
func (d *blockDevice) holes() (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(d.file, &st); err != nil {
		return 0, err
	}
	return max(0, st.Size-st.Blocks*512), nil
}

func (d *blockDevice) close() error {
	var err error
	for _, undo := range slices.Backward(d.undo) {
		err = errors.Join(err, undo())
	}
	d.undo = nil
	return err
}

// stick holds files to install, in memory or on a slow file system.
type stick struct {
	dir    string
	device *blockDevice
}

// makeStick copies files to a directory in dir, or to a file system that is
// mounted there.
func makeStick(ctx context.Context, dir string, r rates, files []string) (*stick, error) {
	s := &stick{dir: filepath.Join(dir, "stick")}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	if r == (rates{}) {
		return s, copyFiles(s.dir, files)
	}
	var size int64 = 40 * mib // for what the file system needs
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			return nil, err
		}
		size += st.Size() + st.Size()/20
	}
	file := filepath.Join(dir, "stick.ext4")
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size/mib*mib), f.Close(), command(ctx, "", "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", file)); err != nil {
		return nil, err
	}
	// Filled without the slowness; by copying, as mke2fs would leave holes.
	fast, err := attach(ctx, file, rates{})
	if err != nil {
		return nil, err
	}
	if err = unix.Mount(fast.path, s.dir, "ext4", 0, ""); err == nil {
		err = errors.Join(copyFiles(s.dir, files), unix.Unmount(s.dir, 0))
	}
	if err := errors.Join(err, fast.close()); err != nil {
		return nil, err
	}
	if s.device, err = attach(ctx, file, r); err != nil {
		return nil, err
	}
	if err := unix.Mount(s.device.path, s.dir, "ext4", unix.MS_RDONLY, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("mount the stick: %w", err), s.device.close())
	}
	return s, nil
}

func copyFiles(dir string, files []string) error {
	for _, name := range files {
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		out, err := os.Create(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			return errors.Join(err, in.Close())
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, mib)) // writes zeros, too
		if err := errors.Join(err, out.Close(), in.Close()); err != nil {
			return err
		}
	}
	return nil
}

// forget makes the next reader of a file wait for the stick.
func (s *stick) forget(file string) error {
	if s.device == nil {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close(), s.device.flush())
}

func (s *stick) close() error {
	if s.device == nil {
		return os.RemoveAll(s.dir)
	}
	return errors.Join(unix.Unmount(s.dir, 0), s.device.close(), os.Remove(s.device.file))
}
