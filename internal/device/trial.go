package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/config"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/pstore"
)

// OpenBroken is [Open] for a device whose configuration may not be readable:
// what cannot be read is as if it were absent. It is for the one case in which
// something must be done all the same, which is to leave a trial.
func OpenBroken(opts Options) *Device {
	if d, err := Open(opts); err == nil {
		return d
	}
	if d, err := openMender(opts); err == nil { // it is only the agent's own file
		return d
	}
	return &Device{Agent: config.DefaultAgent(), opts: opts}
}

// TrialOpen asks the boot environment alone whether a trial is open or armed:
// it needs neither slots nor a record. Whether it is the slot on trial that
// runs, it cannot tell.
func (d *Device) TrialOpen(ctx context.Context) (bool, error) {
	boot, err := d.Boot(install.Slots{})
	if err != nil {
		return false, err
	}
	if boot.Store == nil { // the loader knows by itself
		st, err := boot.Loader.State(ctx)
		if err != nil {
			return false, err
		}
		return st.Phase == bootenv.Trial || st.Phase == bootenv.Armed, nil
	}
	vars, err := boot.Store.Get(ctx)
	if err != nil {
		return false, fmt.Errorf("read boot environment: %w", err)
	}
	return bootenv.TrialNamed(vars), nil
}

// BootID tells this boot from any other, "" where the kernel does not say.
func (d *Device) BootID() string { return d.bootID() }

// crashDirs are where crash logs are, see [pstore].
func (d *Device) crashDirs() []string {
	return []string{d.Path("/sys/fs/pstore"), d.Path("/var/lib/systemd/pstore")}
}

// StartBlackBox begins the black box of the update with that manifest digest,
// before it is armed, so that whatever happens afterwards can be told from
// what happened before.
func (d *Device) StartBlackBox(digest string) error {
	s := state.Stage{Name: state.StageArmed, ManifestDigest: digest, BootID: d.bootID()}
	crashes, err := pstore.List(d.crashDirs()...)
	if err == nil {
		s.Crashes, s.CrashesKnown = crashes, true
	}
	return errors.Join(err, state.StartBlackBox(d.DataDir(), s))
}

// blackBox reads what a trial left behind.
type blackBox struct{ d *Device }

// Forget implements install.BlackBox.
func (b blackBox) Forget() error { return state.RemoveBlackBox(b.d.DataDir()) }

// Began implements install.BlackBox.
func (b blackBox) Began(digest string) bool {
	stages, err := state.ReadBlackBox(b.d.DataDir())
	if err != nil {
		b.d.warn(err.Error())
	}
	return slices.ContainsFunc(stages, func(s state.Stage) bool { return s.ManifestDigest == digest && s.Name != state.StageArmed })
}

// Explain implements install.BlackBox: the last stage that the trial reached,
// the check that failed, and the end of the kernel's crash log, if there is one
// that was not there before. That the black box cannot be read is told and
// stands in nobody's way.
func (b blackBox) Explain(p state.Pending) string {
	stages, err := state.ReadBlackBox(b.d.DataDir())
	if err != nil {
		b.d.warn(err.Error())
		return ""
	}
	var last, failing, armed state.Stage
	for _, s := range stages {
		if s.ManifestDigest != p.ManifestDigest {
			continue
		}
		last = s
		switch s.Name {
		case state.StageArmed:
			armed, failing = s, state.Stage{}
		case state.StageFailing, state.StageFailed:
			failing = s
		case state.StagePassed:
			failing = state.Stage{}
		}
	}
	var words []string
	switch last.Name {
	case "":
		return ""
	case state.StageArmed:
		words = append(words, "it did not get as far as its boot check")
	default:
		words = append(words, "last stage reached: "+last.Name+inBrackets(last.Detail))
	}
	if failing.Name != "" && failing.Name != last.Name {
		words = append(words, "failed check: "+failing.Detail)
	}
	if armed.CrashesKnown {
		text, err := pstore.Latest(armed.Crashes, b.d.crashDirs()...)
		if err != nil {
			b.d.warn(err.Error())
		}
		if text != "" {
			words = append(words, "crash log: "+text)
		}
	}
	return strings.Join(strings.Fields(strings.Join(words, "; ")), " ")
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}
