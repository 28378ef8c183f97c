package bootenv

import (
	"context"
	"fmt"
)

// grubPlainLock keeps writers of ours apart. Other tools use no lock.
const grubPlainLock = "/run/usb-updater-grubenv.lock"

// GRUBPlainConfig says where a plain GRUB environment is.
type GRUBPlainConfig struct {
	// Path is the block: a file of 1024 bytes, such as /boot/grub/grubenv.
	Path string
	// Locks are the lock files to take. Nil means one of our own.
	Locks []string
}

// GRUBPlain is the [Store] of one plain GRUB environment block, as RAUC and
// most distributions use it. There is no second copy and no checksum, so a
// change must be one write that the medium does not split: all bytes that
// change must be in one of the two sectors. That is so while signature and
// variables take 512 bytes at most, which leaves 487 for the variables; and
// beyond that for values that keep their length.
type GRUBPlain struct {
	path string
	lock func(context.Context) (unlock func(), err error)
	open blockOpener
}

// OpenGRUBPlain returns the store. It does not touch the medium and keeps
// nothing open.
func OpenGRUBPlain(cfg GRUBPlainConfig) *GRUBPlain {
	locks := cfg.Locks
	if locks == nil {
		locks = []string{grubPlainLock}
	}
	return &GRUBPlain{
		path: cfg.Path,
		lock: func(ctx context.Context) (func(), error) { return lockAll(ctx, locks) },
		open: openBlock,
	}
}

// Get implements [Store].
func (g *GRUBPlain) Get(ctx context.Context, names ...string) (map[string]string, error) {
	unlock, err := g.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("read boot environment: %w", err)
	}
	defer unlock()
	_, block, err := g.read(false)
	if err != nil {
		return nil, err
	}
	return pick(block.all(), names), nil
}

// Update implements [Store]. It refuses with [ErrNoSpace] or [ErrNotAtomic]
// before the write.
//
//	write one sector   power cut: the old sector or the new one
//	flush              new values
//
// The file is not truncated and not renamed: on the file system that GRUB
// reads, both can lose it.
func (g *GRUBPlain) Update(ctx context.Context, pairs ...Var) error {
	unlock, err := g.lock(ctx)
	if err != nil {
		return fmt.Errorf("write boot environment: %w", err)
	}
	defer unlock()
	old, block, err := g.read(true)
	if err != nil {
		return err
	}
	image, sector, err := g.plan(old, block, pairs)
	if err != nil || sector < 0 {
		return err
	}
	at := sector * grubSector
	if err := g.open.write(g.path, int64(at), image[at:at+grubSector]); err != nil {
		return fmt.Errorf("write boot environment %s: %w", g.path, err)
	}
	return nil
}

// Check implements [Store]. Without pairs, Health.Atomic tells whether any
// variable can be changed; with pairs, whether these can.
func (g *GRUBPlain) Check(ctx context.Context, pairs ...Var) (Health, error) {
	h := Health{Active: -1}
	unlock, err := g.lock(ctx)
	if err != nil {
		return h, fmt.Errorf("read boot environment: %w", err)
	}
	defer unlock()
	old, block, err := g.read(false)
	h.Copies = []CopyHealth{{Place: g.path, Err: err}}
	if err != nil {
		return h, err
	}
	h.Active = 0
	h.Vars = len(block.all())
	h.Free = max(0, grubSector-block.size())
	h.Atomic = block.size() <= grubSector
	h.Degraded = block.degraded(grubBlockSize - block.size())
	if !h.Atomic {
		h.Degraded = append(h.Degraded, "variables are in both sectors of the block: not every change is safe")
	}
	if len(pairs) > 0 {
		_, _, err = g.plan(old, block, pairs)
		h.Atomic = err == nil
	}
	return h, err
}

// plan returns the block after an update and the sector that changes, -1 if
// none does; or why the update is refused.
func (g *GRUBPlain) plan(old []byte, block grubBlock, pairs []Var) (image []byte, sector int, err error) {
	fail := func(err error) ([]byte, int, error) {
		return nil, -1, fmt.Errorf("write boot environment %s: %w", g.path, err)
	}
	block, _, err = block.with(pairs)
	if err != nil {
		return fail(err)
	}
	if image, err = block.encode(); err != nil {
		return fail(err)
	}
	sector, n := differ(old, image)
	switch {
	case n > 1:
		return fail(fmt.Errorf("the change takes more than one sector: %w", ErrNotAtomic))
	case n == 1:
		if err := g.open.writable(g.path); err != nil {
			return fail(err)
		}
	}
	return image, sector, nil
}

// read returns the block as it is and what it means. With sync set, it is what
// the medium has.
func (g *GRUBPlain) read(sync bool) ([]byte, grubBlock, error) {
	image, err := g.open.read(g.path, sync)
	if err != nil {
		return nil, nil, fmt.Errorf("read boot environment %s: %w", g.path, err)
	}
	block, err := decodeGRUBBlock(image)
	if err != nil {
		return nil, nil, fmt.Errorf("read boot environment %s: %w", g.path, err)
	}
	return image, block, nil
}
