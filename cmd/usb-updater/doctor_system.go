package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/usb-updater/usb-updater/internal/config"
	"github.com/usb-updater/usb-updater/internal/gate"
	"github.com/usb-updater/usb-updater/internal/health"
	"github.com/usb-updater/usb-updater/internal/report"
)

func (x *doctor) healthChecks() {
	const check = "health checks"
	if _, err := checker(x.device); err != nil {
		x.fail(check, "A trial cannot be judged, so every update would be rolled back.", err)
	}
	dir := x.device.Path(x.device.Agent.HealthDir)
	names, problems, err := health.Inspect(dir)
	if err != nil {
		x.fail(check, "A trial cannot be judged, so no update would be committed.", err)
		return
	}
	h := x.device.Agent.Health
	configured := len(h.RequiredUnits) + len(h.TCP) + len(h.HTTP) + len(h.Files)
	if h.AllowFailedUnits != nil {
		configured++
	}
	for _, p := range problems {
		x.fail(check, "It counts as a failed check: the next update would be rolled back.", errors.New(filepath.Join(dir, p)))
	}
	switch {
	case len(names) == 0 && configured > 0:
		x.ok(check, "%d in the configuration", configured)
	case len(names) == 0:
		x.warn(check, "Put an executable there that fails if the system does not do its job.", "%s holds none, and none is configured: a system that comes up is committed", dir)
	case len(problems) == 0:
		x.ok(check, "%d in %s, %d in the configuration", len(names), dir, configured)
	}
}

// people looks at what asks a person, and at what tells them of a run.
func (x *doctor) people() {
	c := x.device.Agent
	if c.Confirm == config.ConfirmKey {
		if err := gate.CheckKey(x.device.Path(c.ConfirmDevice)); err != nil {
			x.fail("confirmation", "Nobody could agree to an update. ConfirmDevice in usb-updater.conf must be an input device.", err)
		}
	}
	if led := "/sys/class/leds/" + c.LED; c.LED != "" && !x.exists(led) {
		x.warn("light", "LED in usb-updater.conf is one of the names in that directory.", "no %s: no light shows how a run is", led)
	}
	if c.Hook != "" {
		if err := report.CheckHook(x.device.Path(c.Hook)); err != nil {
			x.warn("hook", "Hook in usb-updater.conf must be an executable of root's that not everybody may write, in such a directory.", "%v", err)
		}
	}
}

// system looks at what starts the agent.
func (x *doctor) system() {
	if x.exists("/run/usb-updater/inhibit") {
		x.warn("inhibited", "Remove the file when sticks may be installed again.", "/run/usb-updater/inhibit exists: no stick is installed")
	}
	if !x.exists("/run/systemd/system") {
		return // something else starts boot-check and watch
	}
	x.units()
	x.rule()
}

// find returns the path of the file in the first directory that has it, "" if
// none does.
func (x *doctor) find(name string, dirs ...string) string {
	for _, dir := range dirs {
		if path := filepath.Join(dir, name); x.exists(path) {
			return path
		}
	}
	return ""
}

// exists tells whether the device has that path. What cannot be looked at
// counts as there.
func (x *doctor) exists(path string) bool {
	_, err := os.Lstat(x.device.Path(path))
	return !errors.Is(err, fs.ErrNotExist)
}
