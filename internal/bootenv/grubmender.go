package bootenv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// grubMenderLock is the lock file of grub-mender-grubenv-set and -print
// (source: grub-mender-grubenv, grub-mender-grubenv-print).
const grubMenderLock = "/var/lock/grub-mender-grubenv-set.lock"

// GRUBMenderConfig says where the environment of Mender's GRUB integration is.
type GRUBMenderConfig struct {
	// Dir holds mender_grubenv1 and mender_grubenv2; see [Places].
	Dir string
	// Locks are the lock files to take. Nil means that of Mender's scripts.
	Locks []string
}

// GRUBMender is the [Store] of Mender's GRUB integration: two directories with
// a block "env" each, and beside it a block "lock" whose variable "editing" is
// "0" while env is whole, and the SHA-256 of that lock file in
// "lock.sha256sum" (source: grub-mender-grubenv).
//
// GRUB reads mender_grubenv1 only. Before that it restores one side from the
// other, by the first rule that fits:
//
//	lock of mender_grubenv2 is not 0  →  mender_grubenv1 is in force
//	lock of mender_grubenv1 is not 0  →  mender_grubenv2 is in force
//
// It restores its own variables alone, and only into a block that is one.
//
// The files are written in place. Mender's own tool truncates them: if that
// reaches the medium before the new content does, GRUB clears the lock although
// it could not restore the block, and from then on reads no environment.
type GRUBMender struct {
	sides  [2]grubPaths
	lock   func(context.Context) (unlock func(), err error)
	open   blockOpener
	create func(path string) error
}

// grubPaths are the files of one side.
type grubPaths struct {
	env, lock, sum string
}

// OpenGRUBMender returns the store. It does not touch the medium and keeps
// nothing open.
func OpenGRUBMender(cfg GRUBMenderConfig) *GRUBMender {
	locks := cfg.Locks
	if locks == nil {
		locks = []string{grubMenderLock}
	}
	return &GRUBMender{
		sides:  grubSides(cfg.Dir),
		lock:   func(ctx context.Context) (func(), error) { return lockAll(ctx, locks) },
		open:   openBlock,
		create: createFile,
	}
}

func grubSides(dir string) [2]grubPaths {
	side := func(name string) grubPaths {
		d := filepath.Join(dir, name)
		return grubPaths{filepath.Join(d, "env"), filepath.Join(d, "lock"), filepath.Join(d, "lock.sha256sum")}
	}
	return [2]grubPaths{side("mender_grubenv1"), side("mender_grubenv2")}
}

// createFile creates an empty file.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// Get implements [Store]. mender_boot_part_hex is left out where it is another
// number than mender_boot_part: GRUB changes only the latter when it goes back,
// and reads only that.
func (g *GRUBMender) Get(ctx context.Context, names ...string) (map[string]string, error) {
	unlock, err := g.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("read boot environment: %w", err)
	}
	defer unlock()
	now, err := g.read(false)
	if err != nil {
		return nil, err
	}
	vars := now.block().all()
	if !sameNumber(vars[varPart], vars[varPartHex]) {
		delete(vars, varPartHex)
	}
	return pick(vars, names), nil
}

// Update implements [Store]. First it does what GRUB would do: it restores the
// side that is not in force, and also a mender_grubenv1 that its lock calls
// whole but that GRUB cannot read. Then it writes mender_grubenv2 and after it
// mender_grubenv1. Both get all variables of the side in force, so that nothing
// of an interrupted update comes back.
//
// It refuses with [ErrNoSpace], [ErrCorrupt] or the medium's error before the
// first write.
func (g *GRUBMender) Update(ctx context.Context, pairs ...Var) error {
	unlock, err := g.lock(ctx)
	if err != nil {
		return fmt.Errorf("write boot environment: %w", err)
	}
	defer unlock()
	now, err := g.read(true)
	if err != nil {
		return err
	}
	steps, err := g.plan(now, pairs)
	if err != nil {
		return err
	}
	return g.run(steps)
}

// Check implements [Store].
func (g *GRUBMender) Check(ctx context.Context, pairs ...Var) (Health, error) {
	h := Health{Active: -1, Atomic: true}
	unlock, err := g.lock(ctx)
	if err != nil {
		return h, fmt.Errorf("read boot environment: %w", err)
	}
	defer unlock()
	now, err := g.read(false)
	for i, s := range now.sides {
		h.Copies = append(h.Copies, CopyHealth{Place: g.sides[i].env, Err: s.err})
	}
	if err != nil {
		return h, err
	}
	h.Active = now.active
	h.Vars = len(now.block().all())
	h.Free = grubBlockSize - now.block().size()
	h.Degraded = now.degraded(h)
	if len(pairs) > 0 {
		_, err = g.plan(now, pairs)
	}
	return h, err
}

// grubSnapshot is what one look at the medium found.
type grubSnapshot struct {
	sides  [2]grubSide
	active int
}

func (s grubSnapshot) block() grubBlock { return s.sides[s.active].block }

// grubSide is one side.
type grubSide struct {
	paths   grubPaths
	image   []byte    // env as it is
	block   grubBlock // what GRUB reads of it
	err     error     // why that is not an environment
	lock    []byte    // lock as it is
	lockErr error     // why that is not a lock
	editing bool      // GRUB regards env as incomplete
	closed  []byte    // lock with "0", as it is to be
	opened  []byte    // lock with "1"
	sum     []byte    // lock.sha256sum as it is, nil if it is not there
}

// read looks at both sides and tells which one is in force.
func (g *GRUBMender) read(sync bool) (grubSnapshot, error) {
	s := grubSnapshot{active: -1}
	for i, paths := range g.sides {
		side, err := g.readSide(paths, sync)
		if err != nil {
			return s, fmt.Errorf("read boot environment: %w", err)
		}
		s.sides[i] = side
	}
	first, second := s.sides[0], s.sides[1]
	s.active = 0
	if !second.editing && (first.editing || first.dead(second)) {
		s.active = 1
	}
	if err := s.sides[s.active].err; err != nil {
		s.active = -1
		return s, fmt.Errorf("read boot environment %s: %w; %s: %w",
			first.paths.env, reason(first), second.paths.env, reason(second))
	}
	return s, nil
}

// reason tells why a side is not in force.
func reason(s grubSide) error {
	switch {
	case s.err != nil:
		return s.err
	case s.editing:
		return errors.New("its update was interrupted")
	default:
		return errors.New("not in force")
	}
}

// readSide reads one side. Files that cannot be read are a state of the side,
// as they are for GRUB; a failed flush is an error.
func (g *GRUBMender) readSide(paths grubPaths, sync bool) (grubSide, error) {
	s := grubSide{paths: paths}
	var errs [3]error
	s.image, errs[0] = g.open.read(paths.env, sync)
	s.lock, errs[1] = g.open.read(paths.lock, sync)
	s.sum, errs[2] = g.open.read(paths.sum, sync)
	for i, path := range []string{paths.env, paths.lock, paths.sum} {
		if _, failed := errors.AsType[*flushError](errs[i]); failed {
			return s, fmt.Errorf("%s: %w", path, errs[i])
		}
	}
	if errs[2] != nil && !errors.Is(errs[2], ErrNotFound) {
		return s, fmt.Errorf("%s: %w", paths.sum, errs[2])
	}
	s.block, s.err = decodeGRUBBlock(s.image)
	if errs[0] != nil {
		s.err = errs[0]
	}
	return s, s.readLock(errs[1])
}

// readLock derives what the lock says and how it is to be. Its error is none of
// the lock's, which is a state of the side.
func (s *grubSide) readLock(cause error) (err error) {
	const editing = "editing"
	block, bad := decodeGRUBBlock(s.lock)
	value, count := block.lookup(editing)
	s.editing = value != "0" // also where GRUB can read none
	switch {
	case cause != nil:
		s.lockErr = cause
	case bad != nil:
		s.lockErr = bad
	case count == 0:
		s.lockErr = corruptError("no lock in it")
	default:
		if s.closed, err = block.set(Var{editing, "0"}).encode(); err == nil {
			s.opened, err = block.set(Var{editing, "1"}).encode()
		}
		return err
	}
	// The two forms of grub-editenv, old and new. The sum tells which it was.
	for _, comment := range []string{
		"# WARNING: Do not edit this file by tools other than grub-editenv!!!\n", "",
	} {
		block = nil
		if comment != "" {
			block = grubBlock{{raw: comment}}
		}
		if s.closed, err = block.set(Var{editing, "0"}).encode(); err != nil {
			return err
		}
		if s.opened, err = block.set(Var{editing, "1"}).encode(); err != nil || s.summed() {
			return err
		}
	}
	return nil
}

// summed tells whether lock.sha256sum fits the lock as it is to be. Mender's
// script writes other names after the sum than the image builder; sha256sum
// looks at the first line that has a sum.
func (s *grubSide) summed() bool {
	sum := sha256.Sum256(s.closed)
	return bytes.HasPrefix(s.sum, append(hex.AppendEncode(nil, sum[:]), ' '))
}

// dead tells whether this side is lost although its lock calls it whole, so
// that the other one holds the values. GRUB reads what comes before the damage:
// if that is something, the other side must say the same, or which slot boots
// would depend on who reads.
func (s grubSide) dead(other grubSide) bool {
	if s.err == nil || other.err != nil || len(s.image) > grubBlockSize {
		return false
	}
	if len(s.block) == 0 {
		return true
	}
	for _, name := range grubMenderVars() {
		mine, _ := s.block.lookup(name)
		if others, _ := other.block.lookup(name); mine != others {
			return false
		}
	}
	return true
}

// grubMenderVars are the variables that Mender's GRUB script reads, writes and
// restores (source: grub-mender-grubenv, 04_mender_setup_env_functions_grub.cfg).
func grubMenderVars() []string {
	return []string{varBootcount, varPart, varUpgrade, "mender_systemd_machine_id"}
}

// degraded says in words what is not as it should be.
func (s grubSnapshot) degraded(h Health) []string {
	var d []string
	for _, side := range s.sides {
		if side.err != nil {
			d = append(d, fmt.Sprintf("copy at %s: %v", side.paths.env, side.err))
		}
		switch {
		case side.lockErr != nil:
			d = append(d, fmt.Sprintf("lock at %s: %v", side.paths.lock, side.lockErr))
		case side.editing:
			d = append(d, fmt.Sprintf("copy at %s: its update was interrupted", side.paths.env))
		}
		if !side.summed() {
			d = append(d, side.paths.sum+" does not fit the lock: Mender's own tools take that side for broken")
		}
	}
	if len(d) == 0 && !bytes.Equal(s.sides[0].image, s.sides[1].image) {
		d = append(d, "the two copies differ")
	}
	return append(d, s.block().degraded(h.Free)...)
}

// degraded says in words what is not as it should be in a block.
func (g grubBlock) degraded(free int) []string {
	var d []string
	for _, name := range g.duplicates() {
		d = append(d, fmt.Sprintf("variable %s is there twice: GRUB reads one and writes the other", quote(name)))
	}
	if free < lowSpace {
		d = append(d, fmt.Sprintf("%d bytes left", free))
	}
	return d
}

// pick returns the variables of these names, or all if there are no names.
func pick(vars map[string]string, names []string) map[string]string {
	if len(names) == 0 {
		return vars
	}
	picked := make(map[string]string, len(names))
	for _, name := range names {
		if v, ok := vars[name]; ok {
			picked[name] = v
		}
	}
	return picked
}
