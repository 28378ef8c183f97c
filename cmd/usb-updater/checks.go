package main

import (
	"context"
	"encoding/json"
	"os"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/health"
	"github.com/usb-updater/usb-updater/internal/report"
)

// Health checks are programs of the device's owner, and connections to its
// services. Under systemd they run in usb-updater-health@.service, which a
// connection to its socket starts: so the process that writes slots and boot
// environment has no network, and a drop-in for one unit gives the checks what
// they need. Without the socket they run in the process that judges.

const (
	// checksVerb is the command of that unit. Nobody else needs it.
	checksVerb = "serve-checks"
	// checksSocket is its socket, in the run directory.
	checksSocket = "health.sock"
)

// serveChecks runs the health checks once, for who is at the other end of
// standard input and output.
func (a *agent) serveChecks(ctx context.Context) (report.Code, error) {
	err := a.serveChecksTo(ctx)
	if err != nil {
		return report.Failed, err
	}
	return report.OK, nil
}

func (a *agent) serveChecksTo(ctx context.Context) error {
	d, err := device.Open(a.opts)
	if err != nil {
		return json.NewEncoder(a.stdout).Encode(health.Broken(err))
	}
	k, err := checker(d)
	if err != nil {
		return json.NewEncoder(a.stdout).Encode(health.Broken(err))
	}
	return k.Serve(ctx, os.Stdin, a.stdout)
}
