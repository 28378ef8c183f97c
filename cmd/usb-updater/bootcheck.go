package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
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
//	recover → (trial boot) → health → commit
//	                                → or rollback → reboot
func (a *agent) bootCheck(ctx context.Context) (report.Code, error) {
	a.lockWait = bootCheckWait
	d, err := device.Open(a.opts)
	if err != nil {
		return report.ConfigFailed, err
	}
	return a.withEngine(d, func(e *install.Engine, store *state.Store) (report.Code, error) {
		if err := e.MarkBooted(ctx); err != nil {
			return report.BootEnvFailed, err
		}
		_, before, err := e.Inspect(ctx)
		if err != nil {
			return report.BootEnvFailed, err
		}
		action, err := e.Recover(ctx)
		res := result{artifact: nameOf(before)}
		switch action {
		case install.ActionNone:
			if err != nil {
				return report.BootEnvFailed, err
			}
			return report.NothingToDo, nil
		case install.ActionReboot:
			return report.Pending, errors.New("an update waits for the reboot")
		case install.ActionResume:
			return report.Pending, errors.New("an update was stopped before its installation: mender resume or mender rollback ends it")
		case install.ActionFinish:
			res.code, res.err = report.OK, err
		case install.ActionFail:
			res.code, res.err = report.TrialFailed, err
			if errors.Is(err, install.ErrInterrupted) {
				res.code = report.ModuleFailed
			}
		case install.ActionDecide:
			res.code, res.err = a.judge(ctx, d, e)
		case install.ActionRollback:
			res.code, res.err = report.TrialFailed, err
		default:
			return report.BootEnvFailed, err
		}
		a.remember(d, store, res)
		if action == install.ActionRollback || errors.Is(res.err, install.ErrRolledBack) && action != install.ActionFail && undoneByReboot(before) {
			if _, err := a.reboot(d, "return to the previous system", ""); err != nil {
				return res.code, errors.Join(res.err, err)
			}
		}
		return res.code, res.err
	})
}

// judge decides about a trial boot.
func (a *agent) judge(ctx context.Context, d *device.Device, e *install.Engine) (report.Code, error) {
	verdict, err := health.Check{Dir: d.Path(d.Agent.HealthDir), Timeout: d.Agent.HealthTimeout()}.Run(ctx)
	if err != nil {
		// Not a verdict about the release: the check itself could not run.
		// The trial stays open, and the boot loader ends it at the next boot.
		return report.Failed, err
	}
	for _, name := range verdict.Ran {
		a.log.Info().Str("check", filepath.Base(name)).Msg("health check ran")
	}
	if !verdict.Passed {
		reason := fmt.Sprintf("health check %s failed: %s", filepath.Base(verdict.Failed), strings.TrimSpace(verdict.Reason))
		if lines := strings.Fields(verdict.Output); len(lines) > 0 {
			reason += fmt.Sprintf(": %.200s", strings.Join(lines, " "))
		}
		if _, err := e.Rollback(ctx, reason); err != nil {
			return codeOf(err, report.HealthFailed), errors.Join(errors.New(reason), err, install.ErrRolledBack)
		}
		return report.HealthFailed, errors.Join(errors.New(reason), install.ErrRolledBack)
	}
	if len(verdict.Ran) == 0 {
		a.log.Warn().Str("dir", d.Agent.HealthDir).Msg("no health check is configured: that the system came up is all that is known")
	}
	switch err := e.Commit(ctx); {
	case err == nil:
	case errors.Is(err, install.ErrCommittedWithErrors):
		return report.CommittedWithErrors, err
	case errors.Is(err, install.ErrNotRolledBack):
		return report.ModuleFailed, err
	case errors.Is(err, install.ErrRolledBack):
		return report.HealthFailed, err
	default:
		return codeOf(err, report.Failed), err
	}
	a.log.Info().Msg("committed: the update is permanent")
	return report.OK, nil
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
