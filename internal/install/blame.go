package install

import (
	"context"
	"errors"
	"strings"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/script"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// blames tells whether an error speaks against the artifact: it is damaged, or a
// script or update module has refused it. Such errors are counted, because the
// same artifact would most likely come to the same end again.
//
// A stick that cannot be read or is gone, a slot or a record that cannot be
// written, a script that only asks to be called later, a program that does not
// start, and a run that was told to end are not the artifact's fault. Nor is a
// Download script, which is one of the device's own.
func blames(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if ae, ok := errors.AsType[*artifact.Error](err); ok {
		return ae.Kind != artifact.Media
	}
	if f, ok := errors.AsType[*script.Failure](err); ok {
		return f.Err == nil && f.ExitCode != script.RetryLater && !strings.HasPrefix(f.Script, "Download_")
	}
	f, ok := errors.AsType[*module.Failure](err)
	return ok && f.Err == nil
}

// countBroken counts an artifact that broke before it was to take effect. It is a
// write of its own, after all that was to be cleaned up: a cut before it leaves the
// record of the attempt, and the artifact one more try.
func (e *Engine) countBroken(ctx context.Context, p *Plan, why error) error {
	if !blames(ctx, why) {
		return nil
	}
	return e.Store.Save(p.record.Know(hexDigest(p.Header()), func(k state.Known) state.Known {
		k.Name, k.Reason = p.Header().Name, reason(why)
		k.Broken++
		return k
	}))
}

// started counts the start of an installation. It is stored with what makes the
// update pending, so that a start counts that the device does not survive: one
// that never comes to a verdict must not repeat for ever.
func started(r state.Record, p *state.Pending) state.Record {
	return r.Know(p.ManifestDigest, func(k state.Known) state.Known {
		k.Name, k.Reason = p.ArtifactName, ""
		k.Starts++
		return k
	})
}

// ended says why the start that was counted came to nothing, or takes it back if
// that is not the artifact's fault. It is stored by what follows.
func ended(ctx context.Context, r state.Record, why error) state.Record {
	blame := blames(ctx, why)
	return r.Know(r.Pending.ManifestDigest, func(k state.Known) state.Known {
		if k.Reason = reason(why); !blame {
			k.Reason = ""
			k.Starts = max(k.Starts-1, 0)
		}
		return k
	})
}

// reason puts joined errors, which have a line each, into one.
func reason(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
