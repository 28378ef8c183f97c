package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/health"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/report"
)

// judge decides about a trial boot. The error tells that it could not, or that
// the trial was rolled back ([install.ErrRolledBack]).
func (a *agent) judge(ctx context.Context, d *device.Device, e *install.Engine, r state.Record) (report.Code, error) {
	notes := a.openNotes(d, r)
	k, err := checker(d)
	if err != nil {
		return report.ConfigFailed, err
	}
	a.stage("settle")
	note, err := k.Settle(ctx)
	if err != nil {
		return report.Failed, err
	}
	if note != "" {
		a.log.Info().Str("note", note).Msg("whether the system settled is not known")
	}
	notes.add(state.StageSettled, note)
	a.stage("health")
	told := 0
	verdict, err := k.Until(ctx, d.Agent.HealthDeadline(), func(res health.Result) {
		if told++; told <= maxFailing {
			notes.add(state.StageFailing, words(res))
		}
	})
	if err != nil {
		return report.Failed, err
	}
	for _, name := range verdict.Ran {
		a.log.Info().Str("check", name).Msg("health check ran")
	}
	if !verdict.Passed {
		notes.add(state.StageFailed, words(verdict))
		return a.goBack(ctx, e, "health check "+words(verdict))
	}
	notes.add(state.StagePassed, "")
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

// judgePending is judge for what this run has installed.
func (a *agent) judgePending(ctx context.Context, d *device.Device, e *install.Engine, store *state.Store) (report.Code, error) {
	r, err := store.Load()
	if err != nil {
		return report.StateFailed, err
	}
	return a.judge(ctx, d, e, r)
}

// goBack rolls the trial back. The environment may lead back although the error
// says that something else went wrong; and if it does not, the trial is not
// confirmed, and the boot loader leads back.
func (a *agent) goBack(ctx context.Context, e *install.Engine, reason string) (report.Code, error) {
	_, err := e.Rollback(ctx, reason)
	return codeOf(err, report.HealthFailed), errors.Join(errors.New(reason), err, install.ErrRolledBack)
}

// maxOutput is how much of a check's output a reason carries, in bytes.
const maxOutput = 1 << 10

// maxFailing is how many failures that are tried again are noted: the black box
// must have room left for the verdict.
const maxFailing = 4

// words puts a failed check into one line, with the end of what it printed.
func words(r health.Result) string {
	s := fmt.Sprintf("%s failed: %s", r.Failed, r.Reason)
	if out := strings.Join(strings.Fields(r.Output), " "); out != "" {
		s += ": " + strings.ToValidUTF8(out[max(0, len(out)-maxOutput):], "")
	}
	return s
}

// notes writes the black box of a trial. It is for the case in which the trial
// does not come to an end; that it cannot be written is told and changes
// nothing.
type notes struct {
	a      *agent
	dir    string
	digest string
	bootID string
	last   string
}

// openNotes goes on with the black box that began when the update was armed, or
// begins one.
func (a *agent) openNotes(d *device.Device, r state.Record) *notes {
	n := &notes{a: a, dir: d.DataDir(), bootID: d.BootID()}
	if r.Pending != nil {
		n.digest = r.Pending.ManifestDigest
	}
	stages, err := state.ReadBlackBox(n.dir)
	if err == nil && !slices.ContainsFunc(stages, func(s state.Stage) bool { return s.ManifestDigest == n.digest }) {
		err = state.StartBlackBox(n.dir, n.stage(state.StageStarted, ""))
	} else if err == nil {
		n.add(state.StageStarted, "")
	}
	n.tell(err)
	return n
}

func (n *notes) stage(name, detail string) state.Stage {
	return state.Stage{Name: name, Detail: detail, ManifestDigest: n.digest, BootID: n.bootID}
}

// add writes a stage, unless it is the last one once more: a check that fails
// again and again is no news, and the medium wears.
func (n *notes) add(name, detail string) {
	if key := name + "\x00" + detail; key != n.last {
		n.last = key
		n.tell(state.AppendBlackBox(n.dir, n.stage(name, detail)))
	}
}

func (n *notes) tell(err error) {
	if err != nil {
		n.a.log.Warn().Err(err).Msg("the stage of the trial could not be kept")
	}
}
