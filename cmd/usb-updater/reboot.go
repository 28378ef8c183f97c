package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// sigReboot makes systemd start reboot.target (source: systemd(1), SIGRTMIN+5;
// SIGRTMIN is 34 in the C library that systemd uses).
const sigReboot = unix.Signal(34 + 5)

// reboot shuts the system down in order where systemd runs, and at once
// elsewhere: by then everything that matters was flushed.
func reboot() error {
	_, err := os.Stat("/run/systemd/system")
	if err == nil {
		if err := unix.Kill(1, sigReboot); err != nil {
			return fmt.Errorf("ask systemd to reboot: %w", err)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reboot: %w", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	return nil
}
