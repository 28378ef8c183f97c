package bootenv

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// grubStep is one write: a part of a file, flushed and read back before the
// next one begins.
type grubStep struct {
	path   string
	off    int64
	data   []byte
	create bool // the file is not there
}

// plan returns the writes of an update, none if nothing changes, or why it is
// refused. What was read is on the medium already.
//
//	sum          where lock.sha256sum does not fit: it does. GRUB does not read
//	             it. First, because from then on Mender's tool sees the sides
//	             as GRUB does.
//
// Only if mender_grubenv2 is in force:
//
//	lock1=1      GRUB restores the first side from the second: old values.
//	env1         as before, whatever is in it; see writeEnv.
//	lock1=0      GRUB takes the first side, which has the old values, whole.
//
// Then the first side is in force, and:
//
//	lock2=1      GRUB restores the second side from the first: old values.
//	env2         as before.
//	lock2=0      the first side is still in force: old values.
//	lock1=1      GRUB takes the second side: new values. This sector commits.
//	env1         as before.
//	lock1=0      the first side has the new values, whole.
//
// If the power fails while a lock is written, GRUB finds "0" or not "0"; there
// is no third. That is true of a torn sector, too, since a lock that cannot be
// read counts as "1".
//
// Writing a side is left out if it is whole and holds the result already.
func (g *GRUBMender) plan(now grubSnapshot, pairs []Var) ([]grubStep, error) {
	fail := func(err error) ([]grubStep, error) {
		return nil, fmt.Errorf("write boot environment %s: %w", now.sides[now.active].paths.env, err)
	}
	block, _, err := now.block().with(pairs)
	if err != nil {
		return fail(err)
	}
	image, err := block.encode()
	if err != nil {
		return fail(err)
	}
	first, second := now.sides[0], now.sides[1]
	var steps []grubStep
	for _, s := range now.sides {
		if !s.summed() {
			steps = append(steps, s.writeSum())
		}
	}
	if now.active == 1 {
		heal, err := first.write(second.image, second.block)
		if err != nil {
			return fail(err)
		}
		steps = append(steps, heal...)
		first = first.after(second.image, second.block)
	}
	for _, s := range []grubSide{second, first} {
		more, err := s.write(image, block)
		if err != nil {
			return fail(err)
		}
		steps = append(steps, more...)
	}
	// What would stop it half way is better known now: a read-only file
	// system, a missing file.
	for _, s := range steps {
		if s.create {
			continue
		}
		if err := g.open.writable(s.path); err != nil {
			return fail(err)
		}
	}
	return steps, nil
}

// run does the writes. The first error ends it: what follows relies on what
// came before, and the next Update restores.
func (g *GRUBMender) run(steps []grubStep) error {
	for _, s := range steps {
		if s.create {
			if err := g.create(s.path); err != nil {
				return fmt.Errorf("write boot environment %s: %w", s.path, err)
			}
		}
		if err := g.open.write(s.path, s.off, s.data); err != nil {
			return fmt.Errorf("write boot environment %s: %w", s.path, err)
		}
	}
	return nil
}

// write returns the steps that give a side the image.
func (s grubSide) write(image []byte, block grubBlock) ([]grubStep, error) {
	if !s.editing && bytes.Equal(s.image, image) && bytes.Equal(s.lock, s.closed) {
		return nil, nil
	}
	// A file is never made shorter: that is a change of its directory.
	if len(s.image) > grubBlockSize {
		return nil, fmt.Errorf("%s: %w", s.paths.env, &blockError{grubBlockSize, "file is too long"})
	}
	if len(s.lock) > grubBlockSize {
		return nil, fmt.Errorf("%s: %w", s.paths.lock, &blockError{grubBlockSize, "file is too long"})
	}
	var steps []grubStep
	if !bytes.Equal(s.lock, s.opened) {
		steps = append(steps, grubStep{path: s.paths.lock, data: s.opened})
	}
	steps = append(steps, s.writeEnv(image, block)...)
	return append(steps, grubStep{path: s.paths.lock, data: s.closed}), nil
}

// after is the side when it has been written.
func (s grubSide) after(image []byte, block grubBlock) grubSide {
	s.image, s.block, s.err = image, block, nil
	s.lock, s.lockErr, s.editing = s.closed, nil, false
	return s
}

// writeEnv returns the steps that change env while its lock is set. If the
// power fails, GRUB sets its variables in what it finds, so that must stay a
// block in which each of them is there once at most.
//
// That holds for a change in one sector, and where every line keeps its place:
// each is the old or the new one. Where lines move across the border of the
// sectors, a mixture could hold a variable twice, and GRUB would change one and
// read the other. Then:
//
//	sector 1 blank   a signature and filler: a comment that ends with the line
//	                 that was cut in two; the lines after it are the old ones
//	sector 2         the same with new lines
//	sector 1         whole
//
// GRUB cannot set anything in a file that is no block, so for that the order is
// sector 2, then sector 1 with the signature, which makes it whole.
func (s grubSide) writeEnv(image []byte, block grubBlock) []grubStep {
	step := func(off int, data []byte) grubStep {
		return grubStep{path: s.paths.env, off: int64(off), data: data}
	}
	head, tail := image[:grubSector], image[grubSector:]
	switch {
	case s.err != nil && len(s.block) == 0:
		return []grubStep{step(grubSector, tail), step(0, head)}
	case s.err == nil && s.block.sameLayout(block):
		return []grubStep{step(0, image)}
	case s.err == nil:
		if _, n := differ(s.image, image); n <= 1 {
			return []grubStep{step(0, image)}
		}
	}
	blank := append([]byte(grubSignature), bytes.Repeat([]byte{'#'}, grubSector-len(grubSignature))...)
	return []grubStep{step(0, blank), step(grubSector, tail), step(0, head)}
}

// writeSum returns the step that makes lock.sha256sum fit. Of a file that has a
// sum, only the sum changes, which is one sector. Of another, what is beyond
// the new line stays and means nothing to sha256sum.
func (s grubSide) writeSum() grubStep {
	sum := sha256.Sum256(s.closed)
	data := hex.AppendEncode(nil, sum[:])
	if len(s.sum) <= len(data) || s.sum[len(data)] != ' ' {
		data = append(data, "  lock\n"...)
	}
	return grubStep{path: s.paths.sum, data: data, create: s.sum == nil}
}

// sameNumber tells whether a decimal and a hexadecimal number agree, in the
// spellings of all clients. No hexadecimal one agrees.
func sameNumber(dec, hexa string) bool {
	if hexa == "" {
		return true
	}
	n, err := strconv.ParseUint(dec, 10, 31)
	if err != nil {
		return false
	}
	m, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(hexa), "0x"), 16, 31)
	return err == nil && m == n
}
