package install

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/slot"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// Errors that callers decide by.
var (
	// ErrInProgress means that an update is pending, so that the other slot is
	// the way forward or the way back and must not be written.
	ErrInProgress = errors.New("update already in progress: commit or roll back first")
	// ErrNothingPending means that there is no update to commit or roll back.
	ErrNothingPending = errors.New("no update in progress")
	// ErrNotRebooted means that the new slot is armed but does not run yet.
	ErrNotRebooted = errors.New("the new system is not running yet: reboot first")
	// ErrTrialFailed means that the boot loader went back to the old slot.
	ErrTrialFailed = errors.New("reboot to the new update failed: the boot loader rolled back to the previous system")
	// ErrRolledBack means that the update failed and was undone. The device
	// may have to reboot to leave the trial.
	ErrRolledBack = errors.New("rolled back")
	// ErrUnfinished means that an update was interrupted in its installation or
	// in its rollback, so that there is nothing to commit.
	ErrUnfinished = errors.New("cannot commit from this state: the update was interrupted or stopped: resume it or roll it back")
	// ErrUnknown means that slots or boot loader could not be asked, and that no
	// record says that an update is pending. It speaks against updates of a slot, and
	// not against those by a module.
	ErrUnknown = errors.New("slots or boot loader cannot be asked")
	// ErrInconsistent means that the boot environment names another slot than
	// the one that runs, with no trial to explain it.
	ErrInconsistent = errors.New("the boot environment does not name the running slot: reboot, then look at the boot environment")
	// ErrBootEnv means that the boot environment could not be read or written.
	ErrBootEnv = errors.New("the boot environment could not be read or written")
	// ErrCommittedWithErrors means that the update is permanent but a script
	// or update module that ran afterwards failed.
	ErrCommittedWithErrors = errors.New("committed, but a script or update module failed afterwards")
	// ErrNotRolledBack means that the update failed and its update module could
	// not undo it.
	ErrNotRolledBack = errors.New("the update failed and was not rolled back: the system may be in an inconsistent state")
	// ErrNoRollback means that the update module cannot undo what it installs.
	ErrNoRollback = errors.New("the update module does not support rollback: commit the update, or install another one")
	// ErrInterrupted means that an update was stopped or interrupted before it
	// could be tried, or one by an update module before it was committed, so that
	// it had to be closed as failed.
	ErrInterrupted = errors.New("the update was interrupted or stopped, and is closed as failed")
	// ErrStopped means that the run ended where [Engine.StopBefore] says. The
	// update is pending.
	ErrStopped = errors.New("stopped on request")
	// ErrNotInstalled means that the update was stopped before its
	// installation, so that there is nothing to commit yet.
	ErrNotInstalled = errors.New("cannot commit from this state: the update is not installed yet: resume it or roll it back")
)

// Store keeps the record between runs. Save replaces all of it durably, or
// nothing.
type Store interface {
	Load() (state.Record, error)
	Save(state.Record) error
}

// Scripts runs and keeps state scripts.
type Scripts interface {
	Install(formatVersion int, scripts []artifact.Script) error
	Run(ctx context.Context, state, action string) error
}

// Modules runs update modules; [module.Runner] is the one. Each call is for a
// payload type.
type Modules interface {
	Find(payloadType string) error
	Download(ctx context.Context, p module.Payload, stream func(context.Context, module.Open) error) error
	Ask(ctx context.Context, payloadType string, q module.Question) (bool, error)
	Run(ctx context.Context, payloadType string, s module.State) error
	Cleanup(ctx context.Context, payloadType string) error
}

// BlackBox tells what a trial boot left behind for the system that runs after
// it.
type BlackBox interface {
	// Explain returns in one line what is known of the trial of p, "" if
	// nothing is.
	Explain(p state.Pending) string
	// Began tells whether the trial boot of that update began its boot check.
	Began(manifestDigest string) bool
	// Forget is called when the record on the medium closes the update.
	Forget() error
}

// Target is a slot open for writing. Sync returns when the medium has
// everything; Verify reads back what was written. The stream that it got has been
// held against the checksum before that.
type Target interface {
	Write(p []byte) (int, error)
	Sync(ctx context.Context) error
	Verify(ctx context.Context, sha256 [sha256.Size]byte) error
	Close() error
}

// Slots are the two root slots and which of them runs.
type Slots struct {
	A, B   slot.Partition
	Booted bootenv.Slot
}

// Partition returns the partition of s.
func (s Slots) Partition(which bootenv.Slot) slot.Partition {
	if which == bootenv.B {
		return s.B
	}
	return s.A
}

// Inactive returns the slot that does not run: the target of an update.
func (s Slots) Inactive() bootenv.Slot { return s.Booted.Other() }

// Engine installs, commits and rolls back on one device. All fields are
// required unless they say otherwise; the caller holds the lock that keeps
// other writers away.
type Engine struct {
	DeviceType string
	// NoType is why the device type is not known, nil if it is. Nothing is
	// installed without it; what was installed needs it no more. Optional.
	NoType error
	Slots  Slots
	// NoSlots is why the device has no root slots, nil if it has. Without them
	// Slots, Loader and OpenTarget are not used, and only update modules install
	// anything. Optional.
	NoSlots error
	// NoLoader is why slots or boot loader cannot be used although the device has
	// them, nil if they can. It is the error of all that needs them, which an update
	// by a module does not. Optional.
	NoLoader error
	Loader   bootenv.Loader
	Store    Store
	Scripts  Scripts
	Modules  Modules // nil: payloads of other types are refused
	// OpenTarget opens a slot for writing an image of so many bytes.
	OpenTarget func(p slot.Partition, size int64) (Target, error)
	// Mounted returns where the partition is mounted, "" if nowhere.
	Mounted func(slot.Partition) (string, error)
	// Unmount takes the slot to write out of use. Optional: without it a
	// mounted slot is refused.
	Unmount func(slot.Partition) error
	// RunningName is the artifact name that the running root file system
	// gives itself, "" if it does not. It stands in where the store has none.
	RunningName string
	// NoName is why that name cannot be read, nil if it can. An artifact that
	// depends on the name is refused then. Optional.
	NoName error
	// BootID tells one boot from the next, "" if unknown.
	BootID string
	// SkipVerify leaves out the read back of the slot.
	SkipVerify bool
	// StopBefore are the states, of [StopStates], before which the run ends
	// with [ErrStopped] for a later [Engine.Resume]. Optional.
	StopBefore []string
	// BlackBox explains failed trials. Optional.
	BlackBox BlackBox
	// Report hears of progress. Optional.
	Report func(Event)
	// Now is the clock, for records that people read. It decides nothing.
	Now func() time.Time
}

// Step names what the engine does.
type Step string

// The steps, in the order of an update's life.
const (
	StepWrite    Step = "write"
	StepVerify   Step = "verify"
	StepArm      Step = "arm"
	StepInstall  Step = "install" // by an update module
	StepCommit   Step = "commit"
	StepRollback Step = "rollback"
	StepRecover  Step = "recover"
)

// Event is one piece of progress.
type Event struct {
	Step     Step
	Artifact string
	Slot     bootenv.Slot
	Module   string // payload type, if an update module does it; then Slot means nothing
	Bytes    int64  // of the payload, so far
	Total    int64  // of the payload; of one file of it if there are several
	Before   int64  // of the files before that one
	// Read and ReadTotal are what Bytes and Total are before decompression.
	// They tell how far the work is: time goes by with what is read, while a
	// run of zeros that is an eighth of the image takes none.
	Read, ReadTotal int64
	Elapsed         time.Duration // since the step began
	// Medium is what was done to the slot. It is set in the last event of
	// StepWrite only, and only if the target tells.
	Medium *slot.Stats
	Detail string
}

// Percent is how much of a step is done, from 0 to 100. It never goes back
// within one step, and it is 100 only when there is nothing left to do.
func (ev Event) Percent() int {
	switch {
	case ev.ReadTotal > 0:
		percent := int(float64(ev.Read) / float64(ev.ReadTotal) * 100)
		if ev.Bytes < ev.Total { // the reading is ahead
			percent = min(percent, 99)
		}
		return percent
	case ev.Total > 0:
		return int(float64(ev.Bytes) / float64(ev.Total) * 100)
	default:
		return 0
	}
}

// Rate is the speed of a step so far, in bytes of the payload per second; 0 if
// it cannot be told yet.
func (ev Event) Rate() int64 {
	if ev.Elapsed <= 0 {
		return 0
	}
	return int64(float64(ev.Before+ev.Bytes) / ev.Elapsed.Seconds())
}

// Left is how long the rest of a step will take if it goes on like this; 0 if
// that cannot be told.
func (ev Event) Left() time.Duration {
	if ev.Read <= 0 || ev.Read >= ev.ReadTotal {
		return 0
	}
	return time.Duration(float64(ev.Elapsed) * float64(ev.ReadTotal-ev.Read) / float64(ev.Read))
}

// RebootArgument is what the reboot that starts a trial must pass to the
// firmware, "" if any reboot will do. A reboot for another reason must not pass
// it.
func (e *Engine) RebootArgument() string {
	if e.Loader == nil { // no slots: only a module asks for a reboot
		return ""
	}
	return e.Loader.Caps().RebootArgument
}

func (e *Engine) report(ev Event) {
	if e.Report != nil {
		e.Report(ev)
	}
}

// explain returns what the trial of p left behind, "" if nothing.
func (e *Engine) explain(p state.Pending) string {
	if e.BlackBox == nil {
		return ""
	}
	return e.BlackBox.Explain(p)
}

// saveClosed closes an update: its record is gone with this write, and then the black
// box is of no use any more. One that stays is replaced by the next update's,
// and until then belongs to nothing that is pending.
func (e *Engine) saveClosed(r state.Record) error {
	if err := e.Store.Save(r); err != nil {
		return err
	}
	if e.BlackBox == nil {
		return nil
	}
	if err := e.BlackBox.Forget(); err != nil {
		e.report(Event{Step: StepRecover, Detail: err.Error()})
	}
	return nil
}

// markFailed records that an artifact's trial failed, so that the same one is not
// tried again unattended.
func (e *Engine) markFailed(r *state.Record, p *state.Pending, reason string) {
	if p == nil || p.ManifestDigest == "" {
		return // another client's update: it cannot be named by content
	}
	f := r.Failed[p.ManifestDigest]
	f.Name, f.Reason, f.Time = p.ArtifactName, reason, e.Now()
	f.Attempts++
	if r.Failed == nil {
		r.Failed = map[string]state.Failure{}
	}
	r.Failed[p.ManifestDigest] = f
}

// bootEnvError is an error of the boot loader. It adds no words of its own.
type bootEnvError struct{ error }

func (e bootEnvError) Unwrap() error { return e.error }

// Is makes it an [ErrBootEnv].
func (bootEnvError) Is(target error) bool { return target == ErrBootEnv }
