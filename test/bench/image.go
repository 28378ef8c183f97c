package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

const (
	mib  = 1 << 20
	cell = 4 << 10 // bytes; by this much images differ
)

// Parts of an image in percent, as measured on a root file system of Debian
// with a little more than half of it in use.
const (
	zeroShare = 42
	codeShare = 60 // of the rest; what remains is text
	newShare  = 9  // of all: new since the release before
)

// Lengths of what lies together, in blocks of 4 KiB. Changed blocks come in
// files: 9 % of all blocks touch about a third of all MiB.
const (
	maxExtent = 128
	maxChange = 248
)

// writeImages writes two releases of one root file system: image, and prev,
// the one before, whose layout is the same. They are the same each time.
func writeImages(image, prev io.Writer, size int64) error {
	layout := rand.New(rand.NewPCG(1, 1))
	g := newGenerator(1)
	left := 0          // of the extent
	var fill func(int) // of its content, by cell
	change := 0        // cells that are still to be changed
	quiet := quietRun(layout)
	for at := int64(0); at < size; at += cell {
		if left == 0 {
			left = 1 + layout.IntN(maxExtent)
			fill = g.kind(layout)
		}
		left--
		if quiet == 0 && fill != nil {
			change, quiet = 1+layout.IntN(maxChange), quietRun(layout)
		}
		g.clear()
		if fill != nil {
			quiet--
			fill(cell)
		}
		_, err := prev.Write(g.cell)
		if change > 0 && fill != nil {
			change--
			g.clear()
			fill(cell)
		}
		_, err2 := image.Write(g.cell)
		if err := errors.Join(err, err2); err != nil {
			return err
		}
	}
	return nil
}

// quietRun is the number of cells with content from the start of one change to
// the start of the next one; on average as many as newShare asks for.
func quietRun(r *rand.Rand) int {
	const mean = (maxChange + 1) / 2 * (100 - zeroShare) / newShare
	return mean/2 + r.IntN(mean)
}

// generator makes content that compresses as programs and as text do.
type generator struct {
	rng   *rand.Rand
	cell  []byte
	ops   [][]byte
	words []string
}

func newGenerator(seed uint64) *generator {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 2)), cell: make([]byte, 0, cell)}
	for range 3000 {
		op := make([]byte, 2+g.rng.IntN(6))
		for i := range op {
			op[i] = byte(g.rng.Uint32())
		}
		g.ops = append(g.ops, op)
		word := make([]byte, 2+g.rng.IntN(9))
		for i := range word {
			word[i] = "etaoinshrdlucmfw"[g.rng.IntN(16)]
		}
		g.words = append(g.words, string(word))
	}
	return g
}

func (g *generator) clear() { g.cell = g.cell[:cell]; clear(g.cell) }

// kind picks what the next extent holds: nil for zeros.
func (g *generator) kind(r *rand.Rand) func(int) {
	switch {
	case r.IntN(100) < zeroShare:
		return nil
	case r.IntN(100) < codeShare:
		return g.code
	default:
		return g.text
	}
}

// rare picks below n, small numbers far more often than large ones.
func (g *generator) rare(n int) int {
	f := g.rng.Float64()
	f *= f * f // as words of a language are
	return int(f * f * float64(n))
}

// code is instructions, of which some are common, and operands.
func (g *generator) code(n int) {
	g.cell = g.cell[:0]
	for len(g.cell) < n {
		g.cell = append(g.cell, g.ops[g.rare(len(g.ops))]...)
		if operand := g.rng.Uint32(); operand%8 == 0 {
			g.cell = binary.LittleEndian.AppendUint16(g.cell, uint16(operand>>16))
		}
	}
	g.cell = g.cell[:n]
}

func (g *generator) text(n int) {
	g.cell = g.cell[:0]
	for len(g.cell) < n {
		g.cell = append(g.cell, g.words[g.rare(len(g.words))]...)
		g.cell = append(g.cell, " \n"[g.rng.IntN(9)/8])
	}
	g.cell = g.cell[:n]
}

// writeNoise writes bytes that do not compress and equal no block of an image.
func writeNoise(w io.Writer, size int64) error {
	_, err := io.CopyN(w, rand.NewChaCha8([32]byte{7}), size)
	return err
}

// share counts the blocks of 4 KiB of a file that are zero, and those that
// differ from another's.
type share struct{ all, zero, differ int }

func compareImages(image, prev string) (share, error) {
	a, err := os.Open(image)
	if err != nil {
		return share{}, err
	}
	defer a.Close()
	b, err := os.Open(prev)
	if err != nil {
		return share{}, err
	}
	defer b.Close()
	var s share
	var x, y, zero [cell]byte
	ra, rb := bufio.NewReaderSize(a, mib), bufio.NewReaderSize(b, mib)
	for {
		if _, err := io.ReadFull(ra, x[:]); errors.Is(err, io.EOF) {
			return s, nil
		} else if err != nil {
			return s, err
		}
		if _, err := io.ReadFull(rb, y[:]); err != nil {
			return s, err
		}
		s.all++
		if x == zero {
			s.zero++
		}
		if x != y {
			s.differ++
		}
	}
}

func (s share) String() string {
	return fmt.Sprintf("%d blocks of 4 KiB, %.1f %% of them zero; %.1f %% are new since the release before", s.all, 100*float64(s.zero)/float64(s.all), 100*float64(s.differ)/float64(s.all))
}
