package medium

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func newImage(t *testing.T) *Image {
	t.Helper()
	m, err := NewImage(bytes.NewReader(bytes.Repeat([]byte{'-'}, 3*BlockSize+100)), 8*BlockSize)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func read(t *testing.T, m *Image, off, n int64) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := m.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestImage(t *testing.T) {
	m := newImage(t)
	if _, err := m.WriteAt([]byte("across"), BlockSize-3); err != nil {
		t.Fatal(err)
	}
	over, clone := m.Over(), m.Clone()
	for _, c := range []*Image{over, clone} {
		if err := c.Zero(BlockSize-1, 2); err != nil {
			t.Fatal(err)
		}
		if got := read(t, c, BlockSize-4, 8); got != "-ac\x00\x00ss-" {
			t.Errorf("after zeroing: %q", got)
		}
	}
	if got := read(t, m, BlockSize-4, 8); got != "-across-" {
		t.Errorf("the image below: %q", got)
	}
	if got := read(t, m, 3*BlockSize+98, 4); got != "--\x00\x00" {
		t.Errorf("behind the base: %q", got)
	}
	if _, err := m.WriteAt([]byte("xx"), m.Size()-1); err == nil {
		t.Error("a write behind the end")
	}
	n := 0
	over.Changed(func(int64) { n++ })
	if n != 2 {
		t.Errorf("%d blocks changed, want 2", n)
	}
}

// history is a trace of: a, flush, b, c (durable by itself), d, flush, e over b.
func history(t *testing.T) *Trace {
	t.Helper()
	tr := NewTrace(newImage(t), nil)
	write := func(off int64, text string, fua bool) {
		tr.Add(Entry{Off: off, Length: int64(len(text)), Data: []byte(text), FUA: fua})
	}
	flush := func() { tr.Add(Entry{Flush: true}) }
	flush() // nothing is new
	write(0, "a", false)
	flush()
	flush()
	write(1, "b", false)
	write(2, "c", true)
	write(3, "d", false)
	flush()
	write(1, "e", false)
	return tr
}

func TestWalk(t *testing.T) {
	tr := history(t)
	want := []struct{ lost, kept string }{
		{"----", "----"},
		{"----", "a---"}, // a
		{"a---", "a---"}, // flush
		{"a---", "ab--"}, // b
		{"a-c-", "abc-"}, // c
		{"a-c-", "abcd"}, // d
		{"abcd", "abcd"}, // flush
		{"abcd", "aecd"}, // e
	}
	n := 0
	err := tr.Walk(func(m Moment) error {
		for loss, text := range map[Loss]string{Lost: want[n].lost, Kept: want[n].kept} {
			left, err := Lose(m, loss, nil)
			if err != nil {
				return err
			}
			if got := read(t, left, 0, 4); got != text {
				t.Errorf("moment %d, %s: %q, want %q", m.Index, loss, got, text)
			}
			at, err := tr.At(m.Index, loss, nil)
			if err != nil {
				return err
			}
			if got := read(t, at, 0, 4); got != text {
				t.Errorf("At(%d, %s): %q, want %q", m.Index, loss, got, text)
			}
		}
		n++
		return nil
	})
	if err != nil || n != len(want) {
		t.Errorf("%d moments, %v; want %d", n, err, len(want))
	}
}

// TestLossIsPartial: a random loss leaves some writes, or some sectors of one,
// and makes all of the combinations sooner or later.
func TestLossIsPartial(t *testing.T) {
	tr := NewTrace(newImage(t), nil)
	for i := range int64(2) {
		tr.Add(Entry{Off: i * 2 * SectorSize, Length: 2 * SectorSize, Data: bytes.Repeat([]byte{'x'}, 2*SectorSize)})
	}
	for loss, want := range map[Loss]int{Some: 4, Torn: 16} {
		seen := map[string]bool{}
		for seed := range uint64(1000) {
			m, err := tr.At(2, loss, rand.New(rand.NewPCG(seed, 0)))
			if err != nil {
				t.Fatal(err)
			}
			state := ""
			for i := range int64(4) {
				sector := read(t, m, i*SectorSize, SectorSize)
				if sector != string(bytes.Repeat([]byte(sector[:1]), SectorSize)) {
					t.Fatal("a sector is a mixture")
				}
				state += sector[:1]
			}
			seen[state] = true
		}
		if len(seen) != want {
			t.Errorf("%s: %d different states, want %d", loss, len(seen), want)
		}
	}
}

// TestDurableStays: what was durable when it was answered is not lost, and what came
// before it does not come back in its place.
func TestDurableStays(t *testing.T) {
	tr := NewTrace(newImage(t), nil)
	for _, e := range []Entry{{Data: []byte("1")}, {Data: []byte("2"), FUA: true}, {Data: []byte("3"), FUA: true}} {
		e.Length = 1
		tr.Add(e)
	}
	for _, loss := range Losses {
		for seed := range uint64(100) {
			m, err := tr.At(3, loss, rand.New(rand.NewPCG(seed, 0)))
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, m, 0, 1); got != "3" {
				t.Fatalf("%s, seed %d: %q", loss, seed, got)
			}
		}
	}
}

// TestUnit: a place that is written as one does not tear.
func TestUnit(t *testing.T) {
	tr := NewTrace(newImage(t), func(off int64) int64 {
		if off < BlockSize {
			return SectorSize
		}
		return BlockSize
	})
	tr.Add(Entry{Off: BlockSize / 2, Length: BlockSize, Data: bytes.Repeat([]byte{'x'}, BlockSize)})
	torn := false
	for seed := range uint64(100) {
		m, err := tr.At(1, Torn, rand.New(rand.NewPCG(seed, 0)))
		if err != nil {
			t.Fatal(err)
		}
		before := read(t, m, BlockSize/2, BlockSize/2)
		torn = torn || bytes.ContainsRune([]byte(before), '-') && bytes.ContainsRune([]byte(before), 'x')
		if after := read(t, m, BlockSize, BlockSize/2); after != string(bytes.Repeat([]byte(after[:1]), BlockSize/2)) {
			t.Fatal("a unit is a mixture")
		}
	}
	if !torn {
		t.Error("nothing was torn where sectors are the unit")
	}
}
