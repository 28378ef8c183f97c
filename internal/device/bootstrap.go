package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

// bootstrapName is an artifact without payload that says what a new device is
// made of (source: Mender client 3.5, "bootstrap artifact").
const bootstrapName = "bootstrap.mender"

// Bootstrap gives a device whose store has no artifact name that of the artifact
// bootstrap.mender in the data directory, with its provides, and removes the
// artifact whatever has come of it, as Mender's clients do. Nor is its signature
// asked for: who makes the image has none to give, and whoever can write the data
// directory can write the store. It is read with all other checks, and with a
// payload it is refused, so nothing is installed by it.
// What is wrong with it is told through Options.Warn: it is no reason to refuse
// the update that comes next.
//
// The engine must be ready. A power cut after the store has the name leaves an
// artifact that the next call removes.
func (d *Device) Bootstrap(ctx context.Context, e *install.Engine) {
	path := filepath.Join(d.DataDir(), bootstrapName)
	// A pipe in its place would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = errors.Join(d.bootstrap(ctx, e, f), f.Close())
	}
	if ctx.Err() == nil && !errors.Is(err, state.ErrIO) { // the next run may have more luck
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		d.warn(fmt.Sprintf("bootstrap artifact %s: %v", path, err))
	}
}

func (d *Device) bootstrap(ctx context.Context, e *install.Engine, f io.Reader) error {
	r, err := e.Store.Load()
	if err != nil || r.ArtifactName != "" {
		return err
	}
	art, err := artifact.Open(f, artifact.Options{})
	if err != nil {
		return err
	}
	if h := art.Header(); !h.Empty {
		return fmt.Errorf("%q has a payload", h.Name)
	}
	plan, err := e.Plan(ctx, art)
	if err != nil {
		return err
	}
	written, err := e.Write(ctx, plan)
	if err != nil {
		return err
	}
	_, err = e.Arm(ctx, written)
	return err
}
