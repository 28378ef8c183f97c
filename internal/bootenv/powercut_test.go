package bootenv

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The medium of these tests is made of sectors. A write puts new versions of
// them into a volatile cache, and a flush makes all of those durable. When the
// power fails, each cached sector is on the medium in any version since the
// last flush, or in the old one, independently of the others. So every subset
// of what was in flight is a state that a reader may find.

const sectorSize = 512

// disk records what is done to it.
type disk struct {
	data    []byte
	log     []diskOp
	syncErr func(n int) error // of the n-th flush from 0; nil: none fails
	lie     bool              // writes are dropped
}

// diskOp is a write, or with nil data a flush.
type diskOp struct {
	off  int64
	data []byte
}

// diskCopy is one copy on a disk.
type diskCopy struct {
	*disk
	at Copy
}

func (c diskCopy) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, c.data[c.at.Offset+off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (c diskCopy) WriteAt(p []byte, off int64) (int, error) {
	off += c.at.Offset
	c.log = append(c.log, diskOp{off, bytes.Clone(p)})
	if c.lie {
		return len(p), nil
	}
	return copy(c.data[off:], p), nil
}

func (c diskCopy) Sync() error {
	flushes := 0
	for _, op := range c.log {
		if op.data == nil {
			flushes++
		}
	}
	c.log = append(c.log, diskOp{})
	if c.syncErr != nil {
		return c.syncErr(flushes)
	}
	return nil
}

func (c diskCopy) Place() place { return place{id: "disk", path: "disk", offset: c.at.Offset} }
func (c diskCopy) Close() error { return nil }

const envSize = 2048

// openDisk returns a store of one or two copies on the disk.
func openDisk(d *disk, copies int, order binary.ByteOrder) *UBoot {
	u := &UBoot{
		allowSingle: true,
		layout:      layout{redundant: copies == 2, order: order},
		lock:        func(context.Context) (func(), error) { return func() {}, nil },
		open:        func(c Copy, _ bool) (medium, error) { return diskCopy{d, c}, nil },
	}
	for i := range copies {
		u.copies = append(u.copies, Copy{"disk", int64(i * envSize), envSize})
	}
	return u
}

// fault is what a cut may do beyond losing sectors.
type fault string

const (
	cut      fault = "cut"
	torn     fault = "cut+torn"      // one sector is a mixture of two versions, or junk
	zeroTail fault = "cut+zero-tail" // the last write is zeros from some sector on
	// The storage says that a flush is done and does not do it: everything is
	// in flight to the end. No order of writes is safe against that.
	lies     fault = "flush-lies"
	liesTorn fault = "flush-lies+torn"
)

// split returns what a fault does to a sector, and whether flushes count.
func (f fault) split() (_ fault, flushes bool) {
	switch f {
	case lies:
		return cut, false
	case liesTorn:
		return torn, false
	default:
		return f, true
	}
}

// afterCut calls emit with every state that a power cut during the log can
// leave on a medium that held start. No state comes twice. The bytes are only
// valid during the call.
func afterCut(start []byte, log []diskOp, f fault, emit func([]byte)) {
	seed, seen := maphash.MakeSeed(), map[uint64]bool{}
	once := func(image []byte) {
		if h := maphash.Bytes(seed, image); !seen[h] {
			seen[h] = true
			emit(image)
		}
	}
	f, flushes := f.split()
	durable := bytes.Clone(start)
	var flying []diskOp
	for i := 0; ; i++ {
		subsets(durable, flying, f, once)
		if i == len(log) {
			return
		}
		if log[i].data != nil {
			flying = append(flying, log[i])
			continue
		}
		if !flushes {
			continue
		}
		for _, op := range flying {
			copy(durable[op.off:], op.data)
		}
		flying = nil
	}
}

// subsets emits every mixture of the sectors in flight.
func subsets(durable []byte, flying []diskOp, f fault, emit func([]byte)) {
	versions := map[int][][]byte{} // by sector: the durable one, then each later one
	var touched []int
	after := bytes.Clone(durable)
	for i, op := range flying {
		data := op.data
		if f == zeroTail && i == len(flying)-1 {
			for keep := 0; keep < len(data); keep += sectorSize {
				zeroed := append(bytes.Clone(data[:keep]), make([]byte, len(data)-keep)...)
				subsets(durable, append(slices.Clone(flying[:i]), diskOp{op.off, zeroed}), cut, emit)
			}
		}
		before := bytes.Clone(after)
		copy(after[op.off:], data)
		for at := int(op.off) / sectorSize * sectorSize; at < int(op.off)+len(data); at += sectorSize {
			if bytes.Equal(before[at:at+sectorSize], after[at:at+sectorSize]) {
				continue
			}
			if versions[at] == nil {
				versions[at] = [][]byte{durable[at : at+sectorSize]}
				touched = append(touched, at)
			}
			versions[at] = append(versions[at], bytes.Clone(after[at:at+sectorSize]))
		}
	}
	combine(bytes.Clone(durable), touched, versions, emit)
	if f != torn {
		return
	}
	for _, at := range touched {
		mixed := maps.Clone(versions)
		mixed[at] = nil
		for i, now := range versions[at] {
			for _, before := range versions[at][:i] {
				mixed[at] = append(mixed[at], mixtures(before, now)...)
			}
		}
		combine(bytes.Clone(durable), touched, mixed, emit)
	}
}

// combine emits the image with every choice of versions.
func combine(image []byte, sectors []int, versions map[int][][]byte, emit func([]byte)) {
	if len(sectors) == 0 {
		emit(image)
		return
	}
	at := sectors[0]
	for _, v := range versions[at] {
		copy(image[at:], v)
		combine(image, sectors[1:], versions, emit)
	}
}

// mixtures are the ways one sector can tear between two versions.
func mixtures(a, b []byte) [][]byte {
	const header = 5
	var m [][]byte
	for _, v := range [][2][]byte{{a, b}, {b, a}} {
		for subset := range 1 << header {
			s := bytes.Clone(v[0])
			for i := range header {
				if subset>>i&1 == 1 {
					s[i] = v[1][i]
				}
			}
			m = append(m, s)
		}
		for _, n := range []int{1, 3, 4, 5, 8, 64, 256, 511} {
			m = append(m, slices.Concat(v[0][:n], v[1][n:]))
		}
	}
	junk := make([]byte, sectorSize)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range junk {
		junk[i] = byte(random.Uint32())
	}
	return append(m, make([]byte, sectorSize), bytes.Repeat([]byte{0xff}, sectorSize), junk)
}

// tally counts what the reader says about the states. A bad one is a mixture,
// which is to say neither all old nor all new values, or lost: no copy is good.
type tally struct{ states, before, after, bad, mix, lost int }

func (y *tally) judge(u *UBoot, before, after stringList) {
	y.states++
	now, err := u.read(false)
	switch {
	case err == nil && slices.Equal(now.list, before):
		y.before++
	case err == nil && slices.Equal(now.list, after):
		y.after++
	case err == nil:
		y.bad++
		y.mix++
	default:
		y.bad++
		y.lost++
	}
}

func (y *tally) add(z tally) {
	y.states += z.states
	y.before += z.before
	y.after += z.after
	y.bad += z.bad
	y.mix += z.mix
	y.lost += z.lost
}

// cutTable collects what power cuts leave behind, to be printed as one table
// for each format.
type cutTable struct {
	format string
	rows   []cutRow
}

type cutRow struct {
	protocol string
	fault    fault
	tally    tally
}

func (c *cutTable) add(protocol string, f fault, y tally) {
	c.rows = append(c.rows, cutRow{protocol, f, y})
}

// print logs the table.
func (c *cutTable) print(t *testing.T) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "power cuts, %s\n%-24s %-16s %7s %7s %7s %7s %7s\n", c.format, "protocol", "fault", "states", "old", "new", "mix", "lost")
	for _, r := range c.rows {
		y := r.tally
		fmt.Fprintf(&b, "%-24s %-16s %7d %7d %7d %7d %7d\n", r.protocol, r.fault, y.states, y.before, y.after, y.mix, y.lost)
	}
	t.Log(b.String())
}
