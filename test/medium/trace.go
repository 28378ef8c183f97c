package medium

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// SectorSize is what a medium writes as one, in bytes.
const SectorSize = 512

// Entry is one request that changed the disk or made it durable.
type Entry struct {
	At     time.Duration // since the trace began
	Off    int64         // in bytes
	Length int64         // in bytes; 0 for a flush
	Data   []byte        // nil for zeros
	Flush  bool          // a flush, after which all entries before it are durable
	FUA    bool          // a write that is durable by itself when it is answered
}

func (e *Entry) apply(m *Image) error {
	switch {
	case e.Flush:
		return nil
	case e.Data == nil:
		return m.Zero(e.Off, e.Length)
	default:
		_, err := m.WriteAt(e.Data, e.Off)
		return err
	}
}

// part applies n bytes of a write.
func (e *Entry) part(m *Image, at, n int64) error {
	if e.Data == nil {
		return m.Zero(e.Off+at, n)
	}
	_, err := m.WriteAt(e.Data[at:at+n], e.Off+at)
	return err
}

// Unit tells of a place on the disk how many bytes, of which it is a multiple, are
// written as one: old or new in any case. nil: SectorSize everywhere.
type Unit func(off int64) int64

// Trace is what happened to an image. It is safe for concurrent use.
type Trace struct {
	Start *Image // as it was when the trace began; not to be changed
	Unit  Unit

	mu      sync.Mutex
	began   time.Time
	entries []Entry
}

// NewTrace begins a trace at an image, which it copies.
func NewTrace(start *Image, unit Unit) *Trace {
	return &Trace{Start: start.Clone(), Unit: unit, began: time.Now()}
}

// Add appends an entry. A flush that follows a flush says nothing and is left out.
func (t *Trace) Add(e Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.entries); e.Flush && (n == 0 || t.entries[n-1].Flush) {
		return // nothing is new
	}
	e.At = time.Since(t.began)
	t.entries = append(t.entries, e)
}

// Len returns how many entries there are.
func (t *Trace) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

// Entries returns what happened so far. The caller must not change it.
func (t *Trace) Entries() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clip(t.entries)
}

// Snapshot returns the trace as it is now; it does not grow any more.
func (t *Trace) Snapshot() *Trace {
	return &Trace{Start: t.Start, Unit: t.Unit, began: t.began, entries: t.Entries()}
}

// Moment is an instant at which the power may fail: after the first Index
// entries.
type Moment struct {
	Index   int
	Durable *Image  // what is on the medium in any case; not to be changed or kept
	Pending []Entry // what may be on the medium, or not
	unit    Unit
}

// Walk calls visit for each moment from the first one on.
func (t *Trace) Walk(visit func(Moment) error) error {
	entries := t.Entries()
	durable := t.Start.Clone()
	first := 0 // of what is not flushed
	for i := 0; ; i++ {
		if err := visit(Moment{Index: i, Durable: durable, Pending: entries[first:i], unit: t.Unit}); err != nil || i == len(entries) {
			return err
		}
		e := &entries[i]
		if e.FUA { // alone; the pending ones before it stay so
			if err := e.apply(durable); err != nil {
				return err
			}
		}
		if e.Flush {
			for k := range entries[first:i] {
				if err := entries[first+k].apply(durable); err != nil {
					return err
				}
			}
			first = i + 1
		}
	}
}

// At returns the image that a power cut after the first index entries leaves.
func (t *Trace) At(index int, loss Loss, rng *rand.Rand) (*Image, error) {
	entries := t.Entries()
	if index < 0 || index > len(entries) {
		return nil, fmt.Errorf("moment %d of a trace of %d entries", index, len(entries))
	}
	durable := t.Start.Clone()
	first := index
	for first > 0 && !entries[first-1].Flush {
		first--
	}
	for i := range entries[:index] {
		if i < first || entries[i].FUA {
			if err := entries[i].apply(durable); err != nil {
				return nil, err
			}
		}
	}
	return durable, lose(durable, entries[first:index], loss, t.Unit, rng)
}

// Loss says what a power cut makes of writes that were not flushed.
type Loss string

// The losses.
const (
	Kept Loss = "kept" // all are on the medium, as after the death of a program
	Lost Loss = "lost" // none is
	Some Loss = "some" // each one is, or not
	Torn Loss = "torn" // each unit of each one is, or not
)

// Losses are all of them.
var Losses = []Loss{Kept, Lost, Some, Torn}

// Lose returns what a power cut at the moment leaves.
func Lose(m Moment, loss Loss, rng *rand.Rand) (*Image, error) {
	left := m.Durable.Over()
	return left, lose(left, m.Pending, loss, m.unit, rng)
}

func lose(m *Image, pending []Entry, loss Loss, unit Unit, rng *rand.Rand) error {
	for i := range pending {
		e := &pending[i]
		var err error
		switch {
		case e.FUA, loss == Kept, loss == Some && rng.IntN(2) == 0: // FUA again, over what came before it
			err = e.apply(m)
		case loss == Torn:
			for at := int64(0); at < e.Length && err == nil; {
				size := int64(SectorSize)
				if unit != nil {
					size = unit(e.Off + at)
				}
				n := min(size-(e.Off+at)%size, e.Length-at)
				if rng.IntN(2) == 0 {
					err = e.part(m, at, n)
				}
				at += n
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
