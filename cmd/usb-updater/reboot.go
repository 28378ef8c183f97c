package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

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

const (
	// askTries and askPause are how often, and after how long, systemd is asked
	// again.
	askTries = 12
	askPause = 10 * time.Second
)

var errNoReboot = errors.New("systemd was asked to reboot, and does not")

// rebootSystem shuts the system down in order where systemd runs, and at once
// elsewhere: by then everything that matters was flushed. The argument is for
// the firmware, "" if there is none.
//
// Under systemd it returns when the shutdown stops this program, which ends ctx.
func (a *agent) rebootSystem(ctx context.Context, argument string) error {
	_, err := os.Stat(systemdDir)
	if err == nil {
		ask := func() error { return unix.Kill(1, sigReboot) }
		if err := rebootSystemd(argument, rebootParam, ask); err != nil {
			return err
		}
		return a.insist(ctx, ask)
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

// insist asks again as long as nothing stops this program. systemd drops the
// request, and tells only its log, while a job is queued that must not be
// replaced: that of emergency.target, on the way to the emergency shell.
func (a *agent) insist(ctx context.Context, ask func() error) error {
	for range askTries {
		if a.sleep(ctx, askPause) != nil {
			return nil
		}
		if err := ask(); err != nil {
			return fmt.Errorf("ask systemd to reboot: %w", err)
		}
	}
	return errNoReboot
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
