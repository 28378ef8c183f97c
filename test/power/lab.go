package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
	"github.com/usb-updater/usb-updater/test/medium"
	"github.com/usb-updater/usb-updater/test/power/judge"
	"github.com/usb-updater/usb-updater/test/vm"
)

// lab has what the rounds share.
type lab struct {
	parts   *vm.Parts
	lay     layout
	dir     string        // scratch
	program string        // the agent to put into each release, "" for the one of the parts
	lock    string        // a file to hold a shared lock on while a machine runs, "" for none
	timeout time.Duration // for one wait
	seed    uint64
	disk    *medium.Image // that was never switched on, with release 1 in slot A
	made    map[string]artifactFiles
	gone    map[string]bool // releases that were forgotten
}

type artifactFiles struct{ image, stick string }

// blobSize is how much of a release is its own, so that an update has something
// to write: 6 MiB.
const blobSize = 6 << 20

func releaseName(n int, healthy bool) string {
	if healthy {
		return fmt.Sprintf("release-%d", n)
	}
	return fmt.Sprintf("release-%d-%s", n, judge.Unhealthy)
}

// newLab builds the device's parts and its disk.
func newLab(ctx context.Context, l *lab, cache, bin string) error {
	var err error
	if l.parts, err = vm.Build(ctx, cache, bin); err != nil {
		return err
	}
	l.made, l.gone = map[string]artifactFiles{}, map[string]bool{}
	first := releaseName(1, true)
	files, err := l.make(ctx, first)
	if err != nil {
		return err
	}
	path := filepath.Join(l.dir, "disk")
	if err := l.parts.Disk(ctx, path, vm.UBoot, files.image); err != nil {
		return err
	}
	f, err := os.Open(path) // read until the program ends
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if l.disk, err = medium.NewImage(f, info.Size()); err != nil {
		return err
	}
	if l.lay, err = readLayout(l.disk, "overlay/etc/fw_env.config"); err != nil {
		return err
	}
	return l.shipEnv()
}

// shipEnv writes the boot environment as images are shipped with it: two equal
// copies.
func (l *lab) shipEnv() error {
	vars := map[string]string{
		"mender_boot_part": "2", "mender_boot_part_hex": "2", "upgrade_available": "0", "bootcount": "0",
		"mender_check_saveenv_canary": "1", "mender_saveenv_canary": "1",
	}
	for _, at := range l.lay.env {
		b, err := bootenvtest.EncodeImage(vars, int(at.size), new(byte(1)))
		if err != nil {
			return err
		}
		if _, err := l.disk.WriteAt(b, at.off); err != nil {
			return err
		}
	}
	return nil
}

// make makes the image of a release and a stick that holds it.
func (l *lab) make(ctx context.Context, name string) (artifactFiles, error) {
	if files, ok := l.made[name]; ok {
		return files, nil
	}
	if l.gone[name] { // it would not be the same again: files have times
		return artifactFiles{}, fmt.Errorf("%s was forgotten", name)
	}
	blob := make([]byte, blobSize)
	source := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32.32s", name))))
	_, _ = source.Read(blob) // it never fails
	// Without D-Bus and logind a start takes a fifth less.
	r := vm.Release{Name: name, Files: map[string]string{
		"/usr/share/blob":                            string(blob),
		"/etc/systemd/system/dbus.service":           "",
		"/etc/systemd/system/dbus.socket":            "",
		"/etc/systemd/system/systemd-logind.service": "",
	}}
	if strings.Contains(name, judge.Unhealthy) {
		r.Files["/etc/usb-updater/usb-updater.conf"] = `{"HealthDeadlineSeconds": 0}` + "\n"
		r.Files["/etc/usb-updater/health.d/10-check"] = "#!/bin/sh\necho not healthy\nexit 1\n"
	}
	if l.program != "" {
		text, err := os.ReadFile(l.program)
		if err != nil {
			return artifactFiles{}, err
		}
		r.Files["/usr/bin/usb-updater"] = string(text)
	}
	files := artifactFiles{image: filepath.Join(l.dir, name+".ext4"), stick: filepath.Join(l.dir, name+".stick")}
	if err := l.parts.Image(ctx, files.image, vm.UBoot, r); err != nil {
		return files, err
	}
	artifact := filepath.Join(l.dir, name+".mender")
	if err := l.parts.PlainArtifact(artifact, name, files.image); err != nil {
		return files, err
	}
	if err := vm.Stick(ctx, files.stick, "vfat", 256, artifact); err != nil {
		return files, err
	}
	l.made[name] = files
	return files, os.Remove(artifact)
}

// forget removes the files of releases other than these.
func (l *lab) forget(keep ...string) error {
	var err error
	for name, files := range l.made {
		kept := false
		for _, k := range keep {
			kept = kept || k == name
		}
		if !kept {
			err = errors.Join(err, os.Remove(files.image), os.Remove(files.stick))
			delete(l.made, name)
			l.gone[name] = true
		}
	}
	return err
}

// releases reads the images of releases.
func (l *lab) releases(ctx context.Context, names ...string) ([]release, error) {
	var out []release
	for _, name := range names {
		files, err := l.make(ctx, name)
		if err != nil {
			return nil, err
		}
		image, err := os.ReadFile(files.image)
		if err != nil {
			return nil, err
		}
		out = append(out, release{name, image})
	}
	return out, nil
}

// hold takes the lock that says that a machine runs.
func (l *lab) hold() (release func(), err error) {
	if l.lock == "" {
		return func() {}, nil
	}
	f, err := os.OpenFile(l.lock, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing releases it
}
