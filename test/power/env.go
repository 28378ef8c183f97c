package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/usb-updater/usb-updater/test/medium"
	"github.com/usb-updater/usb-updater/test/power/judge"
)

// readEnv returns both copies of the boot environment, one behind the other.
func (c *checker) readEnv(m *medium.Image) ([]byte, error) {
	size := c.lay.env[0].size
	b := make([]byte, 2*size)
	for i, s := range c.lay.env {
		if _, err := m.ReadAt(b[int64(i)*size:int64(i+1)*size], s.off); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// envReader follows the boot environment while it is written.
type envReader struct {
	c     *checker
	image *medium.Image
	vars  map[string]string
}

func (c *checker) newEnvReader(start *medium.Image) (*envReader, error) {
	r := &envReader{c: c, image: start.Over()}
	return r, r.read()
}

// apply applies a write to the environment.
func (r *envReader) apply(e *medium.Entry) error {
	if e.Flush || !r.c.lay.inEnv(e.Off) {
		return nil
	}
	if _, err := r.image.WriteAt(e.Data, e.Off); err != nil {
		return err
	}
	return r.read()
}

// read decodes the environment. One that is no good while nothing was lost is
// an error.
func (r *envReader) read() error {
	b, err := r.c.readEnv(r.image)
	if err != nil {
		return err
	}
	path := filepath.Join(r.c.dir, "follow.env")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	store, err := judge.OpenEnv(path, r.c.lay.env[0].size)
	if err != nil {
		return err
	}
	if r.vars, err = store.Get(context.Background()); err != nil {
		return fmt.Errorf("boot environment with all that was written: %w", err)
	}
	return nil
}
