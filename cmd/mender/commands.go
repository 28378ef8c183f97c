package main

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/httpsource"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// Words that scripts of Mender's users look for. They go to standard output,
// but for textTrialFailed.
const (
	textInstalled     = "Installed, but not committed.\nUse 'commit' to update, or 'rollback' to roll back the update.\n"
	textNeedsReboot   = "At least one payload requested a reboot of the device it updated.\n"
	textNothing       = "No update in progress.\n"
	textNotModified   = "System not modified.\n"
	textRollingBack   = "Rolling back Artifact...\n"
	textRolledBack    = "Rolled back.\n"
	textCommitting    = "Committing Artifact...\n"
	textTrialFailed   = `Reboot to the new update failed. Expected "upgrade_available" flag to be true but it was false`
	textCommitted     = "Committed.\n"
	textCommitFailed  = "Committing failed.\n"
	textStreamFailed  = "Streaming failed.\n"
	textInstallFailed = "Installation failed.\n"
	textNoRollback    = "Artifact doesn't support rollback. Committing immediately.\n"
	textEmptyPayload  = "Artifact with empty payload. Committing immediately.\n"
	textAllDone       = "Installed and committed.\n"
	textNotUndone     = "Rollback failed. System may be in an inconsistent state.\n"
	textStreamed      = "Streamed to storage, but not installed/enabled.\n"
	textStopped       = "Stopped on request. Use 'resume' to go on, or 'rollback' to roll back the update.\n"
	textStoppedLate   = "Stopped on request. Use 'resume' to go on.\n"
)

// withEngine runs do under the device's lock.
func (p *program) withEngine(d *device.Device, do func(*install.Engine, *state.Store) (int, error)) (code int, err error) {
	store, err := d.OpenStore()
	if err != nil {
		return exitFailed, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	e := d.Engine(store)
	e.StopBefore = p.stopBefore
	return do(e, store)
}

func (p *program) install(ctx context.Context, d *device.Device) (int, error) {
	keys, err := d.Keys()
	if err != nil {
		return exitFailed, err
	}
	return p.withEngine(d, func(e *install.Engine, _ *state.Store) (int, error) {
		// The flow, from left to right. Nothing is written before Write.
		if err := d.CheckManaged(); err != nil {
			return p.notModified(err)
		}
		unknown := p.ready(ctx, e)
		if unknown != nil && !errors.Is(unknown, install.ErrUnknown) {
			return p.notModified(unknown)
		}
		d.Bootstrap(ctx, e)
		src, err := p.openSource(ctx, d, p.args[0])
		if err != nil {
			return p.notModified(err)
		}
		defer src.Close() // read only
		p.print("Installing Artifact of size %d...\n", src.size)
		style, err := p.progressStyle()
		if err != nil {
			return exitFailed, err
		}
		bar := newProgress(p.stderr, style)
		e.Report = bar.event
		art, err := artifact.Open(src, artifact.Options{Keys: keys})
		if err != nil {
			return p.notModified(err)
		}
		if h := art.Header(); h.Signed && len(keys) == 0 {
			p.log.Warn().Msg("Installing signed artifact without verification as verification key is missing")
		}
		plan, err := e.Plan(ctx, art)
		if err != nil {
			return p.notModified(err)
		}
		if unknown != nil { // an update module has no use for it
			for cause := range causes(unknown) {
				p.log.Warn().Msg(cause)
			}
		}
		written, err := e.Write(ctx, plan)
		bar.end()
		if err != nil {
			return p.notModified(err)
		}
		out, err := e.Arm(ctx, written)
		if out.Committed { // there was no way back to wait for
			if art.Header().Empty {
				p.print(textEmptyPayload)
			} else {
				p.print(textNoRollback + textCommitting)
			}
		}
		return p.installed(ctx, e, out, err)
	})
}

// ready tells whether an update can be installed now. It ends an earlier one that
// needs no decision any more, as the next boot check would, and says so: somebody
// may have stopped that one on purpose.
func (p *program) ready(ctx context.Context, e *install.Engine) error {
	action, r, err := e.Inspect(ctx)
	if err != nil {
		return err
	}
	if action == install.ActionFail || action == install.ActionFinish {
		if _, err = e.Recover(ctx); err == nil {
			err = errors.New("its commit was not finished, and is now")
		}
		for cause := range causes(err) {
			p.log.Warn().Msgf("update %.64q: %s", r.Pending.ArtifactName, cause)
		}
	}
	if action == install.ActionRefuse && r.Pending == nil { // there is nothing to commit or roll back
		return install.ErrInconsistent
	}
	return e.Ready(ctx)
}

// installed tells how an installation has ended, in this run or in a resumed one.
func (p *program) installed(ctx context.Context, e *install.Engine, out install.Outcome, err error) (int, error) {
	switch {
	case errors.Is(err, install.ErrStopped):
		_, err = p.stopped(ctx, e, err) // nobody is told of the reboot later
	case out.Committed:
		p.print(textAllDone)
	case err != nil && !out.Begun:
		p.print(textInstallFailed + textNotModified)
		return exitFailed, err
	case err != nil:
		p.print(textInstallFailed)
		p.undone(ctx, e, err)
		return exitFailed, err
	default:
		p.print(textInstalled)
	}
	if out.NeedsReboot {
		p.print(textNeedsReboot)
	}
	switch {
	case err != nil:
		return exitFailed, err
	case out.NeedsReboot && p.rebootExitCode:
		return exitReboot, nil
	default:
		return exitOK, nil
	}
}

// undone tells what a failure has come to. What is still pending was not rolled
// back.
func (p *program) undone(ctx context.Context, e *install.Engine, err error) {
	p.print(textRollingBack)
	if errors.Is(err, install.ErrNotRolledBack) {
		p.print(textNotUndone)
		return
	}
	if _, r, inspectErr := e.Inspect(context.WithoutCancel(ctx)); inspectErr == nil && r.Pending == nil {
		p.print(textRolledBack)
	}
}

// stopped ends a run that --stop-before has ended. An error that came before
// is one all the same.
func (p *program) stopped(ctx context.Context, e *install.Engine, err error) (int, error) {
	action, _, inspectErr := e.Inspect(context.WithoutCancel(ctx))
	switch {
	case inspectErr == nil && action == install.ActionResume:
		p.print(textStreamed + textStopped)
	case inspectErr == nil && action == install.ActionFinish: // there is no way back any more
		p.print(textStoppedLate)
	default:
		p.print(textStopped)
	}
	if onlyStopped(err) {
		return exitOK, nil
	}
	return exitFailed, err
}

// onlyStopped tells whether nothing failed before the stop.
func onlyStopped(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return !onlyStopped(err) })
	}
	return err == install.ErrStopped //nolint:errorlint // alone
}

func (p *program) resume(ctx context.Context, d *device.Device) (int, error) {
	return p.withEngine(d, func(e *install.Engine, _ *state.Store) (int, error) {
		action, r, err := e.Inspect(ctx)
		if err != nil {
			return exitFailed, err
		}
		if nothingPending(action, r) {
			return p.nothing()
		}
		if action == install.ActionResume { // it installs
			if err := d.CheckManaged(); err != nil {
				return p.notModified(err)
			}
		}
		style, err := p.progressStyle()
		if err != nil {
			return exitFailed, err
		}
		e.Report = newProgress(p.stderr, style).event
		out, err := e.Resume(ctx)
		switch {
		case action == install.ActionResume:
			return p.installed(ctx, e, out, err)
		case errors.Is(err, install.ErrStopped):
			return p.stopped(ctx, e, err)
		case out.Committed:
			p.print(textCommitting + textCommitted)
		case errors.Is(err, install.ErrRolledBack), errors.Is(err, install.ErrTrialFailed), errors.Is(err, install.ErrNotRolledBack):
			p.undone(ctx, e, err)
		}
		if err != nil {
			return exitFailed, err
		}
		return exitOK, nil
	})
}

// notModified reports a failure that left the running system alone.
func (p *program) notModified(err error) (int, error) {
	if !errors.Is(err, install.ErrInProgress) && !errors.Is(err, install.ErrInconsistent) && !errors.Is(err, device.ErrManaged) {
		p.print(textStreamFailed)
	}
	p.print(textNotModified)
	return exitFailed, err
}

func (p *program) commit(ctx context.Context, d *device.Device) (int, error) {
	return p.withEngine(d, func(e *install.Engine, _ *state.Store) (int, error) {
		action, r, err := e.Inspect(ctx)
		if err != nil {
			return exitFailed, err
		}
		if nothingPending(action, r) {
			return p.nothing()
		}
		p.print(textCommitting)
		disarmed := p.tellEnv(ctx, e)
		err = e.Commit(ctx)
		if disarmed && errors.Is(err, install.ErrTrialFailed) {
			p.log.Error().Msg(textTrialFailed)
		}
		switch {
		case err == nil:
			p.print(textCommitted)
			return exitOK, nil
		case errors.Is(err, install.ErrCommittedWithErrors):
			p.print(textCommitted)
			return exitFailed, err
		case errors.Is(err, install.ErrStopped):
			return p.stopped(ctx, e, err)
		case errors.Is(err, install.ErrNotRolledBack):
			p.print(textCommitFailed + textNotUndone)
			return exitFailed, err
		case errors.Is(err, install.ErrRolledBack), errors.Is(err, install.ErrTrialFailed):
			p.print(textCommitFailed + textRolledBack)
			return exitFailed, err
		default:
			p.print(textCommitFailed)
			return exitFailed, err
		}
	})
}

// tellEnv says what a person should know of the boot environment before a
// commit, and tells whether no trial is open in it. What stands against the
// commit is an error of the commit's.
func (p *program) tellEnv(ctx context.Context, e *install.Engine) (disarmed bool) {
	if e.Loader == nil {
		return false
	}
	env, err := e.Loader.State(ctx)
	if err != nil {
		return false
	}
	for _, d := range env.Degraded {
		p.log.Warn().Msg("boot environment: " + d)
	}
	return env.Phase == bootenv.Steady
}

func (p *program) rollback(ctx context.Context, d *device.Device) (int, error) {
	return p.withEngine(d, func(e *install.Engine, _ *state.Store) (int, error) {
		action, r, err := e.Inspect(ctx)
		if err != nil {
			return exitFailed, err
		}
		if nothingPending(action, r) {
			return p.nothing()
		}
		p.print(textRollingBack)
		reboot, err := e.Rollback(ctx, "rolled back by hand")
		switch {
		case errors.Is(err, install.ErrStopped):
			return p.stopped(ctx, e, err)
		case errors.Is(err, install.ErrNotRolledBack):
			p.print(textNotUndone)
			return exitFailed, err
		case err != nil:
			return exitFailed, err
		}
		p.print(textRolledBack)
		if reboot {
			p.print("Reboot to return to the previous system.\n")
		}
		return exitOK, nil
	})
}

// nothingPending: a rollback that waits for its reboot is done, too.
func nothingPending(action install.Action, r state.Record) bool {
	return action == install.ActionNone || action == install.ActionRefuse && r.Pending == nil
}

// nothing ends commit and rollback where no update is in progress.
func (p *program) nothing() (int, error) {
	p.print(textNothing)
	verb := string(p.command)
	if p.command == cmdRollback {
		verb = "roll back"
	}
	p.log.Error().Msg("There is nothing to " + verb)
	return exitNothingPending, nil
}

// show prints what is installed. It takes no lock: the store is replaced as a
// whole, so what is read is never half of something.
func (p *program) show(d *device.Device) (int, error) {
	r, err := state.Read(d.DataDir())
	if errors.Is(err, state.ErrStateVersion) || errors.Is(err, state.ErrCorrupt) { // the record has what can be read
		p.log.Warn().Msg(err.Error())
		err = nil
	}
	if err != nil {
		return exitFailed, err
	}
	if p.command == cmdShowArtifact {
		return p.showName(d, r)
	}
	provides := maps.Clone(r.Provides)
	if provides == nil {
		provides = map[string]string{}
	}
	if r.ArtifactName != "" {
		provides["artifact_name"] = r.ArtifactName
	}
	if r.ArtifactGroup != "" {
		provides["artifact_group"] = r.ArtifactGroup
	}
	for _, k := range slices.Sorted(maps.Keys(provides)) {
		p.print("%s=%s\n", k, provides[k])
	}
	return exitOK, nil
}

// showName prints the name in the store, or that which the running system gives
// itself.
func (p *program) showName(d *device.Device, r state.Record) (int, error) {
	running := ""
	if r.ArtifactName == "" {
		var err error
		if running, err = d.RunningName(); err != nil {
			return exitFailed, err
		}
	}
	p.print("%s\n", cmp.Or(r.ArtifactName, running, "unknown"))
	return exitOK, nil
}

// causes are the lines of an error that was joined of several.
func causes(err error) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(err.Error()) {
			if !yield(strings.TrimSpace(line)) {
				return
			}
		}
	}
}

// explain prints an error, one line for each cause, and what to do about it.
func (p *program) explain(err error) {
	for cause := range causes(err) {
		p.log.Error().Msg(cause)
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			p.log.Info().Msg("hint: " + h.hint)
			return
		}
	}
}

// hints say what a person can do about an error.
var hints = []struct {
	err  error
	hint string
}{
	{bootenv.ErrCorrupt, "/etc/fw_env.config must name the places that the boot loader uses; if it does, saveenv in U-Boot makes a new environment"},
	{bootenv.ErrNoSpace, "the boot environment is full: remove variables that nobody uses"},
	{bootenv.ErrReadOnlyVar, "see .flags in the boot environment, and the write list in /etc/fw_env.config"},
	{install.ErrInProgress, "mender commit or mender rollback ends the update that is pending"},
	{install.ErrNotInstalled, "mender resume installs it, mender rollback gives it up"},
	{install.ErrNoRollback, "mender commit ends the update"},
	{install.ErrPayloadType, "update modules are executables in /usr/share/mender/modules/v3, named after the payload type"},
	{install.ErrNotRebooted, "the update stays pending: reboot, then commit"},
	{install.ErrUnfinished, "mender resume or mender rollback ends it; the previous system stays"},
	{install.ErrMounted, "an automounter may have mounted it; the slot must not be in use"},
	{device.ErrManaged, "stop its service, mender-client or mender-updated, and disable it: only one of the two can manage the slots"},
	{state.ErrLocked, "wait for the other mender or usb-updater to end"},
	{httpsource.ErrUntrusted, "--trusted-certs FILE, or ServerCertificate in mender.conf, names a certificate to trust"},
	{httpsource.ErrExpired, "see whether the clock of this device is right"},
	{httpsource.ErrChanged, "install again: the download begins anew"},
	{os.ErrPermission, "run as root"},
}
