package main

import (
	"maps"
	"time"

	"github.com/usb-updater/usb-updater/test/medium"
)

// boot is a start of the boot loader that was seen in a life.
type boot struct {
	index int // of the trace: what comes from here on is done in this boot
	slot  int // 0 or 1
	trial bool
	at    time.Time
}

// life is what a device did from one power-on to the power cut.
type life struct {
	trace *medium.Trace
	own   [2]blockSet // what the slots' own systems had written before
	boots []boot
	plug  int      // index at which the stick was plugged in, -1 if none was
	names []string // of the releases that may be in a slot, the oldest first
}

// blockSet are blocks of the disk by their numbers.
type blockSet map[int64]bool

// running returns the slot that runs at the index, -1 before the first boot.
func (l *life) running(index int) int {
	slot := -1
	for _, b := range l.boots {
		if b.index <= index {
			slot = b.slot
		}
	}
	return slot
}

// touch keeps account of who wrote to a slot: the system that runs from it, for
// which the content of its root file system changes, or an update, after which
// all of the slot must be as the release has it. It tells whether own marks were
// removed.
func (l *life) touch(own *[2]blockSet, lay layout, index int, e *medium.Entry) (cleared int) {
	slot := lay.slotOf(e.Off)
	if slot < 0 || e.Flush {
		return -1
	}
	if l.running(index) != slot {
		if len(own[slot]) == 0 {
			return -1
		}
		own[slot] = blockSet{}
		return slot
	}
	for n := e.Off / medium.BlockSize; n*medium.BlockSize < e.Off+e.Length; n++ {
		own[slot][n] = true
	}
	return -1
}

func cloneOwn(own [2]blockSet) [2]blockSet {
	var c [2]blockSet
	for i := range own {
		c[i] = maps.Clone(own[i])
		if c[i] == nil {
			c[i] = blockSet{}
		}
	}
	return c
}

// ownAt returns the marks at the index.
func (l *life) ownAt(lay layout, index int) [2]blockSet {
	own := cloneOwn(l.own)
	for i, e := range l.trace.Entries()[:index] {
		l.touch(&own, lay, i, &e)
	}
	return own
}
