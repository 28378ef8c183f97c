package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/atomicfile"
)

// sigReboot makes systemd start reboot.target (source: systemd(1), SIGRTMIN+5;
// SIGRTMIN is 34 in the C library that systemd uses).
const sigReboot = unix.Signal(34 + 5)

const (
	systemdDir = "/run/systemd/system"
	// rebootParam is where systemd's last process looks for the argument of the
	// reboot (source: systemd, src/shared/reboot-util.c).
	rebootParam = "/run/systemd/reboot-param"
)

// reboot shuts the system down in order where systemd runs, and at once
// elsewhere: by then everything that matters was flushed. The argument is for
// the firmware, "" if there is none.
func reboot(argument string) error {
	_, err := os.Stat(systemdDir)
	if err == nil {
		return rebootSystemd(argument, rebootParam, func() error { return unix.Kill(1, sigReboot) })
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reboot: %w", err)
	}
	unix.Sync()
	if err := restart(argument); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	return nil
}

// rebootSystemd leaves the argument where systemd looks for it. One that is
// there from before is not for this reboot: it could start a trial, or make a
// rollback end in the slot that it leaves. If the reboot cannot be asked for,
// no argument stays behind for another one.
func rebootSystemd(argument, param string, ask func() error) error {
	var err error
	if argument == "" {
		err = removeParam(param)
	} else {
		err = atomicfile.Write(param, []byte(argument+"\n"), 0o644)
	}
	if err != nil {
		return fmt.Errorf("reboot argument: %w", err)
	}
	if err := ask(); err != nil {
		return errors.Join(fmt.Errorf("ask systemd to reboot: %w", err), removeParam(param))
	}
	return nil
}

func removeParam(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
