package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/health"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/report"
)

// bootCheckWait bounds the wait for another run that holds the lock.
const bootCheckWait = time.Minute

// bootCheck runs once after each boot:
//
//	recover → (trial boot) → settle → health → commit
//	                                         → or rollback → reboot
//
// A trial that it cannot judge, whatever the reason is, ends as well: see
// [agent.leaveTrial]. Only a signal leaves it open, for that is the reboot
// itself, or the unit's time limit after which systemd starts give-up.
func (a *agent) bootCheck(ctx context.Context) (report.Code, error) {
	a.lockWait = bootCheckWait
	if a.giveUp {
		return a.leaveTrial(ctx, errors.New("the boot check did not come to an end"), report.NothingToDo)
	}
	code, err := a.checkBoot(ctx)
	if err == nil || ctx.Err() != nil || a.leaving || code.Quiet() {
		return code, err
	}
	left, leftErr := a.leaveTrial(ctx, err, code)
	if a.tell != nil && (left != code || leftErr != nil && leftErr.Error() != err.Error()) {
		a.tell.ended = nil // what was told is not how it ended after all
	}
	return left, leftErr
}

func (a *agent) checkBoot(ctx context.Context) (report.Code, error) {
	d, err := device.Open(a.opts)
	if err != nil {
		return report.ConfigFailed, err
	}
	code, err := a.withEngine(ctx, d, func(e *install.Engine, store *state.Store) (report.Code, error) {
		if err := e.MarkBooted(ctx); err != nil {
			return report.BootEnvFailed, err
		}
		_, before, err := e.Inspect(ctx)
		if err != nil {
			return codeOf(err, report.BootEnvFailed), err
		}
		action, err := e.Recover(ctx)
		res := result{artifact: nameOf(before)}
		switch action {
		case install.ActionNone:
			if err != nil {
				return report.BootEnvFailed, err
			}
			if reason, err := e.CloseLost(ctx); err != nil || reason != "" {
				return a.lost(d, store, reason, err)
			}
			return a.nothingOpen(d)
		case install.ActionReboot:
			return report.Pending, errors.New("an update waits for the reboot")
		case install.ActionResume:
			return report.Pending, errors.New("an update was stopped before its installation: mender resume or mender rollback ends it")
		case install.ActionFinish:
			res.code, res.err = finished(err), err
		case install.ActionFail:
			res.code, res.err = closed(before, err), err
		case install.ActionDecide:
			res.code, res.err = a.judge(ctx, d, e, before)
		case install.ActionRollback:
			res.code, res.err = report.TrialFailed, err
		default:
			return report.BootEnvFailed, err
		}
		a.remember(d, store, res)
		if action == install.ActionRollback || errors.Is(res.err, install.ErrRolledBack) && action != install.ActionFail && undoneByReboot(before) {
			a.reboot("return to the previous system", "")
			a.leaving = true
		}
		return res.code, res.err
	})
	a.notePlugged(d)
	return a.follow(ctx, d, code, err)
}

// nothingOpen ends the check of a boot that is no trial. A configuration that
// could not judge one is told now, and not when it is needed.
func (a *agent) nothingOpen(d *device.Device) (report.Code, error) {
	if _, err := checker(d); err != nil {
		return report.ConfigFailed, err
	}
	return report.NothingToDo, nil
}

// closeFirst closes what the last boot left open, if it needs no decision, and
// keeps how that ended. A run does so before it looks at a stick: otherwise
// nobody would learn why the trial failed.
func (a *agent) closeFirst(ctx context.Context, d *device.Device, e *install.Engine, store *state.Store) {
	defer a.tell.afresh(a.tell.known) // what the run itself finds comes on top of it
	action, before, err := e.Inspect(ctx)
	if err == nil && action == install.ActionNone {
		if reason, err := e.CloseLost(ctx); err != nil || reason != "" {
			_, err = a.lost(d, store, reason, err)
			a.log.Warn().Err(err).Msg("the last trial failed")
		}
		return
	}
	if err != nil || action != install.ActionFail && action != install.ActionFinish {
		return // told by what the run does next
	}
	_, err = e.Recover(ctx)
	res := result{code: finished(err), artifact: nameOf(before), err: err}
	if action == install.ActionFail {
		res.code = closed(before, err)
		a.log.Warn().Err(err).Str("artifact", res.artifact).Msg("the last update failed")
	}
	a.remember(d, store, res)
}

// lost keeps that another program ended a trial. Nobody has kept the name of
// its artifact.
func (a *agent) lost(d *device.Device, store *state.Store, reason string, err error) (report.Code, error) {
	if reason == "" {
		return codeOf(err, report.StateFailed), err
	}
	err = errors.Join(fmt.Errorf("%w: %s", install.ErrTrialFailed, reason), err)
	a.remember(d, store, result{code: report.TrialFailed, err: err})
	return report.TrialFailed, err
}

// closed is the code of an update that was closed as failed.
func closed(before state.Record, err error) report.Code {
	switch {
	case !errors.Is(err, install.ErrInterrupted):
		return report.TrialFailed
	case before.Pending.Slotted():
		return report.Interrupted
	default:
		return report.ModuleFailed
	}
}

// finished is the code of a commit that an interruption had left open.
func finished(err error) report.Code {
	switch {
	case err == nil:
		return report.OK
	case errors.Is(err, install.ErrCommittedWithErrors):
		return report.CommittedWithErrors
	default:
		return codeOf(err, report.StateFailed)
	}
}

// checker makes the health checks that the device is configured for.
func checker(d *device.Device) (*health.Checker, error) {
	h := d.Agent.Health
	c := health.Config{
		Dir:              d.Path(d.Agent.HealthDir),
		Timeout:          d.Agent.HealthTimeout(),
		RequiredUnits:    h.RequiredUnits,
		Stable:           time.Duration(h.StableSeconds) * time.Second,
		AllowFailedUnits: h.AllowFailedUnits,
		TCP:              h.TCP,
		HTTP:             h.HTTP,
		Settle:           time.Duration(h.SettleSeconds) * time.Second,
		MinUptime:        time.Duration(h.MinUptimeSeconds) * time.Second,
		Socket:           filepath.Join(d.RunDir(), checksSocket),
	}
	if d.Simulated() {
		c.NoSystemd = "a simulated device has no systemd"
	}
	for _, f := range h.Files {
		c.Files = append(c.Files, health.File{Path: d.Path(f.Path), Contains: f.Contains})
	}
	k, err := health.New(c)
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", d.AgentFile(), err)
	}
	return k, nil
}

// undoneByReboot tells whether a rollback takes effect with a reboot only. That
// of an update module does so at once, unless the module asked for reboots.
func undoneByReboot(before state.Record) bool {
	return before.Pending == nil || before.Pending.Slotted() || before.Pending.NeedsReboot
}

func nameOf(r state.Record) string {
	if r.Pending == nil {
		return r.ArtifactName
	}
	return r.Pending.ArtifactName
}
