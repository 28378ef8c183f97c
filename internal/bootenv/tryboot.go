package bootenv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// trybootArgument is the reboot argument that makes the firmware try once what
// [tryboot] says; 0 stands for the partition that the file names (source:
// Raspberry Pi documentation, "Fail-safe OS updates (TRYBOOT)").
const trybootArgument = "0 tryboot"

// defaultChosen is where the firmware tells how it booted (source: Raspberry
// Pi documentation, "Device trees", /proc/device-tree/chosen/bootloader).
const defaultChosen = "/proc/device-tree/chosen/bootloader"

// TrybootConfig says how a Raspberry Pi chooses between two slots.
type TrybootConfig struct {
	// File is autoboot.txt on the first FAT partition, which must be mounted.
	File string
	// Parts are the boot partitions of the slots, as autoboot.txt counts them:
	// not the root partitions.
	Parts Parts
	// Booted is the slot that runs, as the mounted root says.
	Booted Slot
	// Chosen is the directory in which the firmware tells how it booted; "" is
	// its usual place.
	Chosen string
}

// Tryboot is the [Loader] of a Raspberry Pi whose firmware tries a boot
// partition once.
//
//	[all]              running   tryboot flag, [tryboot]   phase
//	the running slot                                       Steady
//	the other slot               set, the running slot     Trial
//	the other slot               otherwise                 Inconsistent
//
// What arms is the argument of the next reboot, so State never says Armed. The
// file is written when a trial is confirmed, which exchanges the two numbers,
// and when one is reverted: [tryboot] then names the permanent slot as well,
// so that the rest of that boot cannot be confirmed by mistake. The next Arm
// sets it right.
type Tryboot struct {
	path   string
	chosen string
	parts  Parts
	booted Slot
	open   func(write bool) (medium, error)
}

// OpenTryboot returns the loader. It reads nothing.
func OpenTryboot(cfg TrybootConfig) (*Tryboot, error) {
	t := &Tryboot{path: cfg.File, chosen: cfg.Chosen, parts: cfg.Parts, booted: cfg.Booted}
	if t.chosen == "" {
		t.chosen = defaultChosen
	}
	if !filepath.IsAbs(cfg.File) {
		return nil, fmt.Errorf("configure tryboot: %s is not an absolute path", quote(cfg.File))
	}
	if p := cfg.Parts; p.A < 1 || p.B < 1 || p.A == p.B {
		return nil, fmt.Errorf("configure tryboot: the boot partition of slot A is %d, that of slot B is %d: want two numbers", p.A, p.B)
	}
	t.open = func(write bool) (medium, error) {
		m, err := openFile("/sys", Copy{Path: t.path, Size: maxAutoboot}, write)
		if err == nil && !strings.HasPrefix(m.Place().id, "file ") {
			err = errors.Join(fmt.Errorf("not a file: %w", ErrUnsupported), m.Close())
		}
		return m, err
	}
	return t, nil
}

// Caps implements [Loader].
func (t *Tryboot) Caps() Caps {
	return Caps{Name: "tryboot", AutoRevert: true, Volatile: true, RebootArgument: trybootArgument}
}

// State implements [Loader]. A partition that belongs to neither slot, and a
// running root that is not the slot of the boot partition, are [ErrMismatch].
func (t *Tryboot) State(ctx context.Context) (State, error) {
	st, _, err := t.look(ctx)
	return st, err
}

func (t *Tryboot) look(ctx context.Context) (State, autoboot, error) {
	if err := ctx.Err(); err != nil {
		return State{}, autoboot{}, context.Cause(ctx)
	}
	a, err := t.read()
	if err != nil {
		return State{}, a, fmt.Errorf("read %s: %w", t.path, err)
	}
	fw, err := readFirmware(t.chosen)
	if err != nil {
		return State{}, a, err
	}
	st, err := t.decide(a, fw)
	if err != nil {
		return State{}, a, fmt.Errorf("read %s: %w", t.path, err)
	}
	return st, a, nil
}

// firmware is what the firmware tells about this boot.
type firmware struct {
	partition int
	tryboot   bool
}

func readFirmware(dir string) (firmware, error) {
	partition, err := readCell(filepath.Join(dir, "partition"))
	if err != nil {
		return firmware{}, err
	}
	tryboot, err := readCell(filepath.Join(dir, "tryboot"))
	return firmware{partition: int(partition), tryboot: tryboot != 0}, err
}

// readCell reads a device tree property of one 32-bit big-endian cell.
func readCell(path string) (uint32, error) {
	const size = 4
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("firmware does not tell how it booted: %w", notFound(err))
	}
	defer f.Close() // read only
	b := make([]byte, size+1)
	n, err := io.ReadFull(f, b)
	if !errors.Is(err, io.ErrUnexpectedEOF) || n != size {
		return 0, fmt.Errorf("read %s: not %d bytes: %w", path, size, ErrCorrupt)
	}
	return binary.BigEndian.Uint32(b), nil
}

// decide is the table above. It is pure.
func (t *Tryboot) decide(a autoboot, fw firmware) (State, error) {
	permanent, ok := t.parts.slot(a.all.number)
	try, tryOK := t.parts.slot(a.try.number)
	if !ok || !tryOK {
		return State{}, fmt.Errorf("boot_partition is %d, and %d in [tryboot], but slot A boots from partition %d and slot B from %d: %w",
			a.all.number, a.try.number, t.parts.A, t.parts.B, ErrMismatch)
	}
	if ran, ok := t.parts.slot(fw.partition); !ok || ran != t.booted {
		return State{}, fmt.Errorf("firmware started partition %d, but the root file system is that of slot %s, whose boot partition is %d: %w",
			fw.partition, t.booted, t.parts.of(t.booted), ErrMismatch)
	}
	st := State{Booted: t.booted, Default: permanent, Next: permanent}
	switch {
	case permanent == t.booted:
	case fw.tryboot && try == t.booted:
		st.Phase = Trial
	default:
		st.Phase = Inconsistent
	}
	return st, nil
}

// CheckArm implements [Loader]. It also refuses a file that cannot be written
// or whose numbers cannot be exchanged in place: the trial could not be
// confirmed.
func (t *Tryboot) CheckArm(ctx context.Context, s Slot) error {
	_, err := t.checkArm(ctx, s)
	return err
}

func (t *Tryboot) checkArm(ctx context.Context, s Slot) (State, error) {
	st, a, err := t.look(ctx)
	if err != nil {
		return st, err
	}
	if err := armable(st, s); err != nil {
		return st, err
	}
	permanent, try := t.parts.of(st.Default), t.parts.of(s)
	return st, t.writable(a, Parts{permanent, try}, Parts{try, permanent}, Parts{permanent, permanent})
}

// writable tells why the file cannot take the place of one with these numbers.
func (t *Tryboot) writable(a autoboot, numbers ...Parts) error {
	for _, p := range numbers {
		if _, err := a.with(p.A, p.B); err != nil {
			return fmt.Errorf("write %s: %w", t.path, err)
		}
	}
	m, err := t.open(true)
	if err != nil {
		return fmt.Errorf("write %s: %w", t.path, err)
	}
	return m.Close()
}

// BeforeWrite implements [Loader]. There is nothing to disarm: a slot is tried
// only if the reboot itself asks for it.
func (t *Tryboot) BeforeWrite(ctx context.Context, s Slot) error { return t.CheckArm(ctx, s) }

// Arm implements [Loader]. It makes sure that [tryboot] names the slot, and
// mostly writes nothing. The trial starts with a reboot that passes
// Caps.RebootArgument; any other reboot starts the permanent slot.
func (t *Tryboot) Arm(ctx context.Context, s Slot) error {
	st, err := t.checkArm(ctx, s)
	if err != nil {
		return err
	}
	return t.update(st.Default, s)
}

// CheckConfirm implements [Loader].
func (t *Tryboot) CheckConfirm(ctx context.Context) error {
	st, a, err := t.look(ctx)
	if err != nil {
		return err
	}
	if err := confirmable(st); err != nil {
		return err
	}
	return t.writable(a, Parts{t.parts.of(t.booted), t.parts.of(t.booted.Other())})
}

// Confirm implements [Loader]. It exchanges the two numbers.
func (t *Tryboot) Confirm(ctx context.Context) error {
	st, err := t.State(ctx)
	if err != nil {
		return err
	}
	if err := confirmable(st); err != nil {
		return err
	}
	return t.update(t.booted, t.booted.Other())
}

// Revert implements [Loader]. The firmware has cleared its flag before the
// trial began, so the permanent slot boots next in any case.
func (t *Tryboot) Revert(ctx context.Context) error {
	st, err := t.State(ctx)
	if err != nil || st.Phase != Trial {
		return err
	}
	return t.update(st.Default, st.Default)
}

// update writes both numbers. Nothing is written if they are there already.
func (t *Tryboot) update(permanent, try Slot) error {
	if err := t.write(t.parts.of(permanent), t.parts.of(try)); err != nil {
		return fmt.Errorf("write %s: %w", t.path, err)
	}
	return nil
}

func (t *Tryboot) write(all, try int) error {
	a, err := t.read()
	if err != nil {
		return err
	}
	text, err := a.with(all, try)
	if err != nil || bytes.Equal(text, a.text) {
		return err
	}
	if err := t.overwrite(a.text, text); err != nil {
		return err
	}
	got, err := t.read()
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(got.text, text) {
		return ErrVerify
	}
	return nil
}

func (t *Tryboot) overwrite(old, text []byte) (err error) {
	m, err := t.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return writeDifference(m, old, text)
}

// writeDifference overwrites what differs between two texts of one length, in
// place, and flushes. A file of at most [maxAutoboot] bytes is one sector, which
// storage writes as one; a rename on FAT would be several.
//
//	write the digits   power cut: the old text, or all of the new one. With the
//	                   old one the permanent slot is as before: a trial that was
//	                   being confirmed ends, and the old slot boots. With the new
//	                   one the update is permanent.
//	flush              the new text
//
// The flush also writes the time of the change into the directory, which is
// another sector: either version of it describes the same file.
func writeDifference(m medium, old, text []byte) error {
	first, last := 0, len(text)
	for first < last && old[first] == text[first] {
		first++
	}
	for last > first && old[last-1] == text[last-1] {
		last--
	}
	if _, err := m.WriteAt(text[first:last], int64(first)); err != nil {
		return err
	}
	if err := m.Sync(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// read reads the file.
func (t *Tryboot) read() (_ autoboot, err error) {
	m, err := t.open(false)
	if err != nil {
		return autoboot{}, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	b := make([]byte, maxAutoboot+1)
	n, err := m.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return autoboot{}, err
	}
	return parseAutoboot(b[:n])
}
