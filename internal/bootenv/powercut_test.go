package bootenv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
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
		return n, io.ErrUnexpectedEOF
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
)

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
		for i, now := range versions[at][1:] {
			mixed[at] = append(mixed[at], mixtures(versions[at][i], now)...)
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

// tally counts what the reader says about the states.
type tally struct{ states, before, after, bad int }

func (y *tally) judge(u *UBoot, before, after stringList) {
	y.states++
	now, err := u.read(false)
	switch {
	case err == nil && slices.Equal(now.list, before):
		y.before++
	case err == nil && slices.Equal(now.list, after):
		y.after++
	default:
		y.bad++
	}
}

// The strings are spread so that an update changes several sectors.
func environment(part, upgrade, count string) stringList {
	return stringList{
		"altbootcmd=" + strings.Repeat("x", 300), "bootcount=" + count, "fdt=" + strings.Repeat("y", 600),
		"mender_boot_part=" + part, "mender_boot_part_hex=" + part, "ramdisk=" + strings.Repeat("z", 500), "upgrade_available=" + upgrade,
	}
}

var (
	armPairs   = []Var{{"mender_boot_part", "3"}, {"mender_boot_part_hex", "3"}, {"upgrade_available", "1"}, {"bootcount", "0"}}
	countPairs = []Var{{"bootcount", "1"}, {"upgrade_available", "0"}}
)

// starts are media before the update. The copy that is not in force holds the
// values of two updates ago, which differ from the new ones in every sector.
func starts() map[string][]byte {
	l := layout{redundant: true, order: binary.NativeEndian}
	now, old := environment("2", "0", "0"), environment("4", "0", "1")
	pair := func(first stringList, f byte, second stringList, g byte) []byte {
		return slices.Concat(l.encode(first, f, envSize), l.encode(second, g, envSize))
	}
	half := pair(now, 7, old, 6)
	copy(half[envSize+700:], make([]byte, 900))
	return map[string][]byte{
		"steady 5/4":   pair(now, 5, old, 4),
		"second 4/5":   pair(old, 4, now, 5),
		"wrap 254/255": pair(old, 254, now, 255),
		"wrap 255/0":   pair(old, 255, now, 0),
		"shipped 1/1":  pair(now, 1, now, 1),
		"other erased": slices.Concat(l.encode(now, 5, envSize), bytes.Repeat([]byte{0xff}, envSize)),
		"other torn":   half,
	}
}

// protocol changes the environment on a disk.
type protocol func(u *UBoot, pairs []Var) error

func update(u *UBoot, pairs []Var) error { return u.Update(context.Background(), pairs...) }

// plainUpdate is what the command-line tools do: one write, one flush.
func plainUpdate(u *UBoot, pairs []Var) error {
	now, err := u.read(false)
	if err != nil {
		return err
	}
	list, _, err := now.list.with(pairs)
	if err != nil {
		return err
	}
	target := now.copies[now.target()].at
	m, err := u.open(target, true)
	if err != nil {
		return err
	}
	return writeOnce(m, u.layout.encode(list, now.copies[now.active].flags+1, target.Size))
}

// cutOne runs the protocol once on start and judges every state of a cut. With
// next, each state is handed on as the start of another run.
func cutOne(t *testing.T, start []byte, copies int, p protocol, pairs []Var, f fault, next func([]byte)) tally {
	t.Helper()
	run := &disk{data: bytes.Clone(start)}
	u := openDisk(run, copies, binary.NativeEndian)
	now, err := u.read(false)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	if err := p(u, pairs); err != nil {
		t.Fatalf("update: %v", err)
	}
	after, _, err := now.list.with(pairs)
	if err != nil {
		t.Fatal(err)
	}
	target := now.copies[now.target()].at
	for _, op := range run.log {
		if op.data != nil && (op.off < target.Offset || op.off+int64(len(op.data)) > target.Offset+int64(target.Size)) {
			t.Errorf("write of %d bytes at 0x%x is outside the copy at 0x%x", len(op.data), op.off, target.Offset)
		}
	}
	var y tally
	found := &disk{}
	reader := openDisk(found, copies, binary.NativeEndian)
	afterCut(start, run.log, f, func(image []byte) {
		found.data = image
		y.judge(reader, now.list, after)
		if next != nil {
			next(bytes.Clone(image))
		}
	})
	if y.after == 0 {
		t.Error("no state has the new values: the enumeration is broken")
	}
	return y
}

// sum adds the tallies of all start states.
func sum(t *testing.T, p protocol, f fault) tally {
	t.Helper()
	var y tally
	for name, start := range starts() {
		one := cutOne(t, start, 2, p, armPairs, f, nil)
		t.Logf("  %-14s %-14s %v", name, f, one)
		y.add(one)
	}
	return y
}

func (y *tally) add(z tally) {
	y.states += z.states
	y.before += z.before
	y.after += z.after
	y.bad += z.bad
}

func (y tally) String() string {
	return fmt.Sprintf("states %6d  old %6d  new %5d  bad %4d", y.states, y.before, y.after, y.bad)
}

func TestPowerCutRedundant(t *testing.T) {
	for _, f := range []fault{cut, torn, zeroTail} {
		y := sum(t, update, f)
		t.Logf("two phases     %-14s %v", f, y)
		if y.bad != 0 {
			t.Errorf("%s: %d of %d states are neither old nor new", f, y.bad, y.states)
		}
	}
}

// TestPowerCutPlain shows that the enumeration can fail, and why the update has
// two phases.
func TestPowerCutPlain(t *testing.T) {
	for f, wantBad := range map[fault]bool{cut: false, torn: true, zeroTail: false} {
		y := sum(t, plainUpdate, f)
		t.Logf("one write      %-14s %v", f, y)
		if (y.bad != 0) != wantBad {
			t.Errorf("%s: %d bad states, want some: %v", f, y.bad, wantBad)
		}
	}
}

// TestPowerCutSingle shows why a single copy on a block device needs consent.
func TestPowerCutSingle(t *testing.T) {
	l := layout{order: binary.NativeEndian}
	y := cutOne(t, l.encode(environment("2", "0", "0"), 0, envSize), 1, update, armPairs, cut, nil)
	t.Logf("single copy    %-14s %v", cut, y)
	if y.bad == 0 {
		t.Error("a single copy in place survived every cut")
	}
}

// TestPowerCutTwice cuts a second update that starts from what the first cut
// left behind.
func TestPowerCutTwice(t *testing.T) {
	second := torn
	if testing.Short() {
		second = cut
	}
	var first, all tally
	for name, start := range starts() {
		f := cut
		if name == "steady 5/4" && !testing.Short() {
			f = torn
		}
		first.add(cutOne(t, start, 2, update, armPairs, f, func(left []byte) {
			all.add(cutOne(t, left, 2, update, countPairs, second, nil))
		}))
	}
	t.Logf("first update   %v", first)
	t.Logf("second update  %v", all)
	if all.bad != 0 {
		t.Errorf("%d of %d states are neither old nor new", all.bad, all.states)
	}
}

// TestNoWriteAfterFailedFlush: the first failed flush ends an update, and the
// old values stay in force, whatever the flag of the other copy was.
func TestNoWriteAfterFailedFlush(t *testing.T) {
	broken := errors.New("broken")
	for name, start := range starts() {
		for fail := range 4 { // two while reading, two while writing
			d := &disk{data: bytes.Clone(start)}
			d.syncErr = func(n int) error {
				if n == fail {
					return broken
				}
				return nil
			}
			u := openDisk(d, 2, binary.NativeEndian)
			if err := u.Update(t.Context(), armPairs...); !errors.Is(err, broken) {
				t.Fatalf("%s, flush %d fails: Update = %v", name, fail, err)
			}
			if last := d.log[len(d.log)-1]; last.data != nil {
				t.Errorf("%s, flush %d fails: a write follows", name, fail)
			}
			if fail == 3 { // all of it is in the cache, perhaps on the medium
				continue
			}
			if now, err := u.read(false); err != nil || !slices.Equal(now.list, environment("2", "0", "0")) {
				t.Errorf("%s, flush %d fails: the old values are not in force: %v", name, fail, err)
			}
		}
	}
}

func TestUpdateReadsBack(t *testing.T) {
	d := &disk{data: starts()["steady 5/4"], lie: true}
	err := openDisk(d, 2, binary.NativeEndian).Update(t.Context(), armPairs...)
	if !errors.Is(err, ErrVerify) {
		t.Errorf("Update = %v, want ErrVerify", err)
	}
}
