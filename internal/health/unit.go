package health

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
)

// ownUnits are the agent's own. They are no part of the new system's health: a
// bad stick fails its unit, and the unit that asks is not finished yet.
func ownUnits() []string { return []string{"usb-updater*.service", "usb-updater*.socket"} }

// systemd is what is asked of the service manager. Answers are those of the
// system that runs, at the time of the call.
type systemd interface {
	ListJobsContext(ctx context.Context) ([]dbus.JobStatus, error)
	ListUnitsByNamesContext(ctx context.Context, units []string) ([]dbus.UnitStatus, error)
	ListUnitsFilteredContext(ctx context.Context, states []string) ([]dbus.UnitStatus, error)
	GetUnitPropertyContext(ctx context.Context, unit, name string) (*dbus.Property, error)
	GetServicePropertyContext(ctx context.Context, service, name string) (*dbus.Property, error)
	GetUnitNameByPID(ctx context.Context, pid uint32) (string, error)
}

// connect opens a connection, and says how to close it.
type connect func(ctx context.Context) (systemd, func(), error)

// dial connects through the system bus or, where there is none, with systemd
// itself. The connection ends with ctx.
func dial(ctx context.Context) (systemd, func(), error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil, nil, errors.New("systemd does not run here")
	}
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to systemd: %w", err)
	}
	return conn, conn.Close, nil
}

func refuse(why string) connect {
	return func(context.Context) (systemd, func(), error) { return nil, nil, errors.New(why) }
}

// unitChecks returns the checks that systemd answers.
func (k *Checker) unitChecks() ([]check, error) {
	var checks []check
	if units := k.config.RequiredUnits; len(units) > 0 {
		for _, u := range units {
			if !strings.Contains(u, ".") || strings.ContainsAny(u, "/*? \t\n") {
				return nil, fmt.Errorf("\"Health.RequiredUnits\" has %s: want a name with its type, as in app.service", quote(u))
			}
		}
		checks = append(checks, requiredUnits{k, units})
	}
	if patterns := k.config.AllowFailedUnits; patterns != nil {
		for _, p := range patterns {
			if _, err := path.Match(p, ""); err != nil {
				return nil, fmt.Errorf("\"Health.AllowFailedUnits\" has %s: %w", quote(p), err)
			}
		}
		checks = append(checks, failedUnits{k, patterns})
	}
	return checks, nil
}

// requiredUnits are the units that must be active and stay so.
type requiredUnits struct {
	k     *Checker
	units []string
}

func (requiredUnits) name() string { return "required units" }

// run looks twice: a service that is started again and again is active each
// time somebody looks, but it is another invocation each time.
func (r requiredUnits) run(ctx context.Context) verdict {
	manager, closeConn, err := r.k.connect(ctx)
	if err != nil {
		return wrong("%v", err)
	}
	defer closeConn()
	before, v := r.look(ctx, manager)
	if v.reason != "" {
		return v
	}
	if err := r.k.wait(ctx, r.k.config.Stable); err != nil {
		return wrong("watch units: %v", err)
	}
	after, v := r.look(ctx, manager)
	if v.reason != "" {
		return v
	}
	for i, u := range r.units {
		if before[i] != after[i] {
			return wrong("unit %s was restarted within %s", u, r.k.config.Stable)
		}
	}
	return verdict{}
}

// look returns what changes when a service is started anew, for each unit: how
// often systemd did so, and its invocation ID, which is a new one also if
// somebody asked for the restart (source: systemd.exec(5), "INVOCATION_ID").
func (r requiredUnits) look(ctx context.Context, manager systemd) ([]string, verdict) {
	restarts := make([]string, len(r.units))
	for i, u := range r.units {
		// One by one: the answer has a unit's own name where an alias was asked for.
		status, err := manager.ListUnitsByNamesContext(ctx, []string{u})
		if err != nil {
			return nil, wrong("ask for unit %s: %v", u, err)
		}
		switch {
		case len(status) != 1:
			return nil, wrong("ask for unit %s: %d answers", u, len(status))
		case status[0].LoadState == "not-found":
			return nil, wrong("unit %s does not exist", u)
		case status[0].ActiveState != "active" && status[0].ActiveState != "reloading":
			return nil, wrong("unit %s is %s (%s)", u, status[0].ActiveState, status[0].SubState)
		}
		if !strings.HasSuffix(status[0].Name, ".service") {
			continue
		}
		count, err := manager.GetServicePropertyContext(ctx, status[0].Name, "NRestarts")
		if err != nil {
			return nil, wrong("ask for restarts of %s: %v", u, err)
		}
		id, err := manager.GetUnitPropertyContext(ctx, status[0].Name, "InvocationID")
		if err != nil {
			return nil, wrong("ask for restarts of %s: %v", u, err)
		}
		restarts[i] = count.Value.String() + " " + id.Value.String()
	}
	return restarts, verdict{}
}

// failedUnits: no unit may be failed but those that are allowed to.
type failedUnits struct {
	k       *Checker
	allowed []string
}

func (failedUnits) name() string { return "failed units" }

// maxNamed is how many units a reason names.
const maxNamed = 8

func (f failedUnits) run(ctx context.Context) verdict {
	manager, closeConn, err := f.k.connect(ctx)
	if err != nil {
		return wrong("%v", err)
	}
	defer closeConn()
	units, err := manager.ListUnitsFilteredContext(ctx, []string{"failed"})
	if err != nil {
		return wrong("ask for failed units: %v", err)
	}
	var failed []string
	for _, u := range units {
		if u.ActiveState == "failed" && !matches(u.Name, slices.Concat(f.allowed, ownUnits())) {
			failed = append(failed, u.Name)
		}
	}
	if len(failed) == 0 {
		return verdict{}
	}
	return wrong("%s", enumerate(failed))
}

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil // a bad pattern was refused by New
	})
}

// enumerate names the first of many, in order.
func enumerate(names []string) string {
	slices.Sort(names)
	if len(names) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}
