package bootenv

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/bootenv/grubtest"
)

// The boot partition of these tests is laid out flat on a disk, so that the
// enumeration of powercut_test.go sees all six files at once. A file is a
// sector of the directory with its length and place, and two places for data.
const (
	grubPlace = grubBlockSize
	grubArea  = sectorSize + 2*grubPlace
)

var grubNames = []string{grubtest.Env1, grubtest.Lock1, grubtest.Sum1, grubtest.Env2, grubtest.Lock2, grubtest.Sum2}

// flatFile is a file on the disk. It implements medium.
type flatFile struct {
	*disk
	base int
}

func flat(d *disk, name string) flatFile {
	for i, n := range grubNames {
		if strings.HasSuffix(name, n) {
			return flatFile{d, i * grubArea}
		}
	}
	panic("no file " + name)
}

func (f flatFile) entry() (length, start int) {
	e := f.data[f.base:]
	return int(binary.LittleEndian.Uint16(e)), f.base + sectorSize + int(binary.LittleEndian.Uint16(e[2:]))*grubPlace
}

func flatEntry(length, place int) []byte {
	e := make([]byte, sectorSize)
	binary.LittleEndian.PutUint16(e, uint16(length))
	binary.LittleEndian.PutUint16(e[2:], uint16(place))
	return e
}

func (f flatFile) raw(off int, b []byte) {
	_, _ = diskCopy{f.disk, Copy{}}.WriteAt(b, int64(off))
}

func (f flatFile) ReadAt(p []byte, off int64) (int, error) {
	length, start := f.entry()
	n := copy(p, f.data[start : start+length][min(int(off), length):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f flatFile) WriteAt(p []byte, off int64) (int, error) {
	length, start := f.entry()
	if end := int(off) + len(p); end > length {
		f.raw(f.base, flatEntry(end, (start-f.base-sectorSize)/grubPlace))
	}
	f.raw(start+int(off), p)
	return len(p), nil
}

func (f flatFile) Sync() error  { return diskCopy{f.disk, Copy{}}.Sync() }
func (f flatFile) Place() place { return place{id: "disk", path: "disk"} }
func (f flatFile) Close() error { return nil }

func (f flatFile) content() []byte {
	length, start := f.entry()
	return f.data[start : start+length]
}

// replace is the way of grub-editenv: the file is truncated, and its new
// content goes to free clusters.
func (f flatFile) replace(b []byte) {
	_, start := f.entry()
	other := 1 - (start-f.base-sectorSize)/grubPlace
	f.raw(f.base, flatEntry(0, other))
	f.raw(f.base+sectorSize+other*grubPlace, b)
	f.raw(f.base, flatEntry(len(b), other))
	_ = f.Sync()
}

// flatDisk lets GRUB's model read and write the disk.
type flatDisk struct{ *disk }

func (d flatDisk) Read(name string) []byte { return bytes.Clone(flat(d.disk, name).content()) }

func (d flatDisk) Rewrite(name string, b []byte) {
	f := flat(d.disk, name)
	_, _ = f.WriteAt(b, 0)
	_ = f.Sync()
}

// flatImage is a disk with files. What no file uses is junk.
func flatImage(files map[string][]byte) []byte {
	junk := rand.New(rand.NewPCG(1, 2))
	var image []byte
	for _, name := range grubNames {
		area := make([]byte, grubArea)
		for i := range area {
			area[i] = byte(junk.Uint32())
		}
		copy(area, flatEntry(len(files[name]), 0))
		copy(area[sectorSize:], files[name])
		image = append(image, area...)
	}
	return image
}

func openFlat(d *disk) *GRUBMender {
	return &GRUBMender{
		sides: grubSides("/"),
		lock:  func(context.Context) (func(), error) { return func() {}, nil },
		open:  func(path string, _ bool) (medium, error) { return flat(d, path), nil },
	}
}

// grubVars are variables of Mender's, and one that is none of GRUB's business.
type grubVars map[string]string

const grubA, grubB = 2, 27

// pad is what stands before and after the other variables.
func (v grubVars) lines(pad int) []string {
	lines := []string{"bootcount=" + v[varBootcount], "before=" + strings.Repeat("x", pad)}
	for _, name := range []string{varPart, varPartHex, varUpgrade} {
		lines = append(lines, name+"="+v[name])
	}
	return append(lines, "mender_systemd_machine_id=00112233445566778899aabbccddeeff", "after=y")
}

func newGRUBVars(part int, upgrade, count string) grubVars {
	return grubVars{varPart: fmt.Sprint(part), varPartHex: fmt.Sprintf("%X", part), varUpgrade: upgrade, varBootcount: count}
}

func (v grubVars) with(pairs []Var) grubVars {
	w := maps.Clone(v)
	for _, p := range pairs {
		w[p.Name] = p.Value
	}
	return w
}

// boots is what GRUB starts if it finds these variables and all else is whole.
func (v grubVars) boots() string { return grubBoots(flatImage(grubtest.Image(v.lines(0)...))) }

// grubBoots starts GRUB three times without help of ours and returns what it
// starts.
func grubBoots(image []byte) string {
	d := flatDisk{&disk{data: bytes.Clone(image)}}
	var all []string
	for range 3 {
		part, err := grubtest.Boot(d, grubA, grubB)
		if err != nil {
			return err.Error()
		}
		all = append(all, fmt.Sprint(part))
	}
	return strings.Join(all, " ")
}

// grubSays returns what our reader finds.
func grubSays(image []byte) (grubVars, error) {
	vars, err := openFlat(&disk{data: bytes.Clone(image)}).Get(context.Background())
	if err != nil {
		return nil, err
	}
	if vars["after"] != "y" {
		return nil, fmt.Errorf("another program's variable is %q", vars["after"])
	}
	return vars, nil
}

// is tells whether a state is v: for our reader, and for GRUB that boots it
// thrice; and whether, after GRUB booted it once, an update of ours works.
func (v grubVars) is(image []byte) bool {
	found, err := grubSays(image)
	if err != nil {
		return false
	}
	for _, name := range []string{varPart, varUpgrade, varBootcount} {
		if found[name] != v[name] {
			return false
		}
	}
	booted := flatDisk{&disk{data: bytes.Clone(image)}}
	if _, err := grubtest.Boot(booted, grubA, grubB); err != nil {
		return false
	}
	return grubBoots(image) == v.boots() && grubFinish(booted.data) && grubFinish(image)
}

// grubFinish tells whether an update of ours leaves a whole environment.
func grubFinish(image []byte) bool {
	d := &disk{data: bytes.Clone(image)}
	g := openFlat(d)
	final := newGRUBVars(grubB, "0", "0")
	var pairs []Var
	for name, value := range final {
		pairs = append(pairs, Var{name, value})
	}
	if g.Update(context.Background(), pairs...) != nil {
		return false
	}
	h, err := g.Check(context.Background())
	return err == nil && h.Degraded == nil && grubBoots(d.data) == final.boots()
}

// grubWriter changes the environment on a disk.
type grubWriter func(d *disk, pairs []Var) error

func grubUpdate(d *disk, pairs []Var) error {
	return openFlat(d).Update(context.Background(), pairs...)
}

// grubTruncate is what grub-mender-grubenv-set does.
func grubTruncate(d *disk, pairs []Var) error {
	set := func(name string, pairs ...Var) {
		f := flat(d, name)
		b := bytes.Clone(f.content())
		for _, p := range pairs {
			b, _ = grubtest.Set(b, p.Name, p.Value)
		}
		f.replace(b)
	}
	for _, side := range [][2]string{{grubtest.Lock2, grubtest.Env2}, {grubtest.Lock1, grubtest.Env1}} {
		set(side[0], Var{"editing", "1"})
		set(side[1], pairs...)
		set(side[0], Var{"editing", "0"})
	}
	return nil
}

// grubBoot is GRUB itself, which counts and goes back.
func grubBoot(d *disk, _ []Var) error {
	_, err := grubtest.Boot(flatDisk{d}, grubA, grubB)
	return err
}

// grubCut runs a writer once and judges every state of a cut. With next, each
// good state is handed on with what it holds.
func grubCut(t *testing.T, start []byte, w grubWriter, pairs []Var, before, after grubVars, f fault, next func([]byte, grubVars)) tally {
	t.Helper()
	run := &disk{data: bytes.Clone(start)}
	if err := w(run, pairs); err != nil {
		t.Fatalf("update: %v", err)
	}
	var y tally
	afterCut(start, run.log, f, func(image []byte) {
		y.states++
		var holds grubVars
		switch {
		case before.is(image):
			y.before++
			holds = before
		case after.is(image):
			y.after++
			holds = after
		default:
			y.spoiled(image)
			return
		}
		if next != nil {
			next(bytes.Clone(image), holds)
		}
	})
	return y
}

// spoiled counts a state that is neither old nor new: GRUB finds no environment
// from the second boot on, or it finds a mixture.
func (y *tally) spoiled(image []byte) {
	y.bad++
	d := flatDisk{&disk{data: bytes.Clone(image)}}
	_, _ = grubtest.Boot(d, grubA, grubB)
	if len(grubtest.Vars(d.Read(grubtest.Env1))) == 0 {
		y.lost++
	} else {
		y.mix++
	}
}

// grubScenario is a change and where it starts.
type grubScenario struct {
	name   string
	before grubVars
	pairs  []Var
}

func grubPairs(part int, upgrade string) []Var {
	v := newGRUBVars(part, upgrade, "0")
	return []Var{{varPart, v[varPart]}, {varPartHex, v[varPartHex]}, {varUpgrade, upgrade}, {varBootcount, "0"}}
}

func grubScenarios() []grubScenario {
	confirm := []Var{{varUpgrade, "0"}}
	return []grubScenario{
		{"arm B", newGRUBVars(grubA, "0", "0"), grubPairs(grubB, "1")},
		{"arm A", newGRUBVars(grubB, "0", "1"), grubPairs(grubA, "1")},
		{"confirm B", newGRUBVars(grubB, "1", "1"), confirm},
		{"confirm A", newGRUBVars(grubA, "1", "1"), confirm},
		{"revert to A", newGRUBVars(grubB, "1", "1"), grubPairs(grubA, "0")},
	}
}

// grubPads put the border of the sectors where it does most harm.
func grubPads() map[string]int {
	pads := map[string]int{"small": 10}
	base := len(grubSignature) + len("bootcount=0\nbefore=\n")
	names := len("mender_boot_part=2\nmender_boot_part_hex=2\n")
	pads["border in part"] = grubSector - base - 10
	pads["border after part"] = grubSector - base - len("mender_boot_part=2\n")
	pads["border in upgrade"] = grubSector - base - names - 10
	pads["border after upgrade"] = grubSector - base - names - len("upgrade_available=0\n")
	pads["border in machine id"] = grubSector - base - names - len("upgrade_available=0\n") - 5
	return pads
}

// grubSum adds the tallies of all scenarios and places of the border.
func grubSum(t *testing.T, w grubWriter, pads map[string]int, f fault) tally {
	t.Helper()
	var y tally
	for _, where := range slices.Sorted(maps.Keys(pads)) {
		for _, sc := range grubScenarios() {
			start := flatImage(grubtest.Image(sc.before.lines(pads[where])...))
			one := grubCut(t, start, w, sc.pairs, sc.before, sc.before.with(sc.pairs), f, nil)
			y.add(one)
		}
	}
	return y
}

// TestPowerCutGRUB cuts the power in every way that the writes allow, and
// prints what GRUB finds.
func TestPowerCutGRUB(t *testing.T) {
	table := &cutTable{format: "Mender's GRUB environment"}
	t.Run("in place", func(t *testing.T) { cutGRUB(t, table) })
	t.Run("torn", func(t *testing.T) { cutGRUBTorn(t, table) })
	t.Run("twice", func(t *testing.T) { cutGRUBTwice(t, table) })
	t.Run("truncating", func(t *testing.T) { cutGRUBTruncate(t, table) })
	table.print(t)
}

func cutGRUB(t *testing.T, table *cutTable) {
	t.Helper()
	y := grubSum(t, grubUpdate, grubPads(), cut)
	table.add("in place", cut, y)
	if y.bad != 0 || y.after == 0 {
		t.Errorf("%d of %d states are neither old nor new", y.bad, y.states)
	}
}

// cutGRUBTorn: a sector of env1 that is torn while its lock is set is
// the one thing that GRUB's own restore cannot mend: it clears the lock all the
// same, and from the second boot on reads no environment. Our reader knows
// better in each of these states, and the next update of ours mends it, before
// that boot or after it.
func cutGRUBTorn(t *testing.T, table *cutTable) {
	t.Helper()
	var all tally
	for _, sc := range grubScenarios() {
		start := flatImage(grubtest.Image(sc.before.lines(10)...))
		after := sc.before.with(sc.pairs)
		run := &disk{data: bytes.Clone(start)}
		if err := grubUpdate(run, sc.pairs); err != nil {
			t.Fatal(err)
		}
		afterCut(start, run.log, torn, func(image []byte) {
			all.states++
			switch {
			case sc.before.is(image):
				all.before++
				return
			case after.is(image):
				all.after++
				return
			}
			all.spoiled(image)
			found, err := grubSays(image)
			if err != nil || found[varPart] != after[varPart] || found[varUpgrade] != after[varUpgrade] || found[varBootcount] != after[varBootcount] {
				t.Errorf("%s: torn sector: Get = %v, %v, want %v", sc.name, found, err, after)
			}
			booted := flatDisk{&disk{data: bytes.Clone(image)}}
			_, _ = grubtest.Boot(booted, grubA, grubB)
			if !grubFinish(image) || !grubFinish(booted.data) {
				t.Errorf("%s: torn sector: an update does not mend it", sc.name)
			}
		})
	}
	table.add("in place", torn, all)
	if all.bad == 0 {
		t.Error("GRUB survived a torn block: its model is too kind")
	}
}

// cutGRUBTwice cuts a second update, or GRUB itself, in what the first
// cut left behind. GRUB's own writes change a block as a whole: with variables
// in both sectors a cut may split them, and that is not ours to mend.
func cutGRUBTwice(t *testing.T, table *cutTable) {
	t.Helper()
	var updates tally
	boots := map[bool]*tally{true: {}, false: {}}
	pads := grubPads()
	for _, where := range []string{"small", "border after part", "border in upgrade"} {
		small, pad := where == "small", pads[where]
		for _, sc := range grubScenarios() {
			f := cut
			if small && sc.name == "arm A" && !testing.Short() {
				f = torn
			}
			start := flatImage(grubtest.Image(sc.before.lines(pad)...))
			pairs := grubPairs(grubA, "0")
			if sc.name == "revert to A" {
				pairs = grubPairs(grubB, "1")
			}
			grubCut(t, start, grubUpdate, sc.pairs, sc.before, sc.before.with(sc.pairs), f, func(left []byte, holds grubVars) {
				updates.add(grubCut(t, left, grubUpdate, pairs, holds, holds.with(pairs), cut, nil))
			})
			grubCut(t, start, grubUpdate, sc.pairs, sc.before, sc.before.with(sc.pairs), cut, func(left []byte, holds grubVars) {
				boots[small].add(grubCut(t, left, grubBoot, nil, holds, holds.booted(t), cut, nil))
			})
		}
	}
	table.add("in place, next update", cut, updates)
	table.add("GRUB's boot, one sector", cut, *boots[true])
	table.add("GRUB's boot, two sectors", cut, *boots[false])
	if bad := updates.bad + boots[true].bad; bad != 0 {
		t.Errorf("%d states are neither old nor new", bad)
	}
}

// booted are the variables after GRUB has started once.
func (v grubVars) booted(t *testing.T) grubVars {
	t.Helper()
	d := flatDisk{&disk{data: flatImage(grubtest.Image(v.lines(0)...))}}
	if _, err := grubtest.Boot(d, grubA, grubB); err != nil {
		t.Fatal(err)
	}
	return grubtest.Vars(d.Read(grubtest.Env1))
}

// cutGRUBTruncate shows that the enumeration can fail, and why nothing
// is truncated.
func cutGRUBTruncate(t *testing.T, table *cutTable) {
	t.Helper()
	y := grubSum(t, grubTruncate, map[string]int{"small": 10}, cut)
	table.add("truncating, as its tool", cut, y)
	if y.bad == 0 {
		t.Error("truncating writes survived every cut")
	}
}
