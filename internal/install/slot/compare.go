package slot

import (
	"bytes"
	"sync/atomic"
	"time"
)

const (
	// cellSize is how much is compared at a time, in bytes: the block of the
	// file systems that images hold. It is also the largest sector.
	cellSize = 4 << 10
	// zeroRun is the least length of a run of zeros that is left to the
	// medium to make, in bytes. Below it a command costs more than the bytes.
	zeroRun = 64 << 10
	// gapShare bounds what is rewritten although it is right: one byte for
	// so many that differ. It buys fewer and longer writes.
	gapShare = 8
	// gapMax is the longest gap that is worth it, in bytes.
	gapMax = 16 << 10
)

// run is a range of a block, in bytes from its beginning, that has to change.
type run struct {
	off, n int
	zero   bool // by command
}

// balance decides whether to read what the medium holds before it is written.
//
// It counts in windows. After each the reading goes on if what it found equal
// is at least one part in [hitShare] of what it read, and if writing that would
// have taken at least half of the time of the reading: half, because a
// write that is spared is also wear that is spared. The fastest read of the
// window stands for all: the others waited for the processor, or for a write.
// Else it stops, and tries again with a small window after a while. It never
// stops before the first window is full, so that an image of which only the
// beginning is right, because its installation was interrupted, is seen to be so.
type balance struct {
	off     bool
	window  int64 // bytes to read until the next verdict
	idle    int64 // bytes not compared since it is off
	read    int64 // in this window, in bytes
	equal   int64
	fastest float64 // read in this window, in nanoseconds for a byte
}

const (
	firstWindow = 8 << 20  // bytes
	retryWindow = 1 << 20  // bytes
	retryAfter  = 64 << 20 // bytes that are written without comparing
	hitShare    = 16
	wearFactor  = 2
)

func newBalance() balance { return balance{window: firstWindow} }

// wanted reports whether the next n bytes are to be compared.
func (b *balance) wanted(n int) bool {
	if !b.off {
		return true
	}
	if b.idle += int64(n); b.idle <= retryAfter {
		return false
	}
	b.off, b.idle, b.window = false, 0, retryWindow
	return true
}

// saw takes what reading n bytes has shown. perByte is the time that writing a
// byte takes, 0 if nothing has been written yet.
func (b *balance) saw(n, equal int, took time.Duration, perByte float64) {
	b.read += int64(n)
	b.equal += int64(equal)
	cost := float64(took) / float64(n)
	if b.read == int64(n) || cost < b.fastest {
		b.fastest = cost
	}
	if b.read < b.window {
		return
	}
	spared := float64(b.equal) * perByte * wearFactor
	b.off = b.equal*hitShare < b.read || perByte > 0 && float64(b.read)*b.fastest > spared
	b.read, b.equal, b.window = 0, 0, firstWindow
}

// rate is the time that writing takes. The write stage adds, the compare stage
// asks.
type rate struct{ bytes, nanos atomic.Int64 }

func (r *rate) add(n int, took time.Duration) {
	r.bytes.Add(int64(n))
	r.nanos.Add(int64(took))
}

// perByte returns nanoseconds, or 0 if too little was written to tell.
func (r *rate) perByte() float64 {
	const enough = 1 << 20
	n := r.bytes.Load()
	if n < enough {
		return 0
	}
	return float64(r.nanos.Load()) / float64(n)
}

// comparer is the stage that finds out which bytes have to change.
type comparer struct {
	m       medium
	now     func() time.Time
	zeroes  *atomic.Bool // the medium makes zeros by command
	blank   bool         // the medium was erased: there is nothing to compare with
	old     []byte       // what the medium holds
	zero    []byte       // a cell
	balance balance
	rate    *rate

	differs int64 // bytes in all
	joined  int64 // bytes of gaps that are written although they are right
	done    *counters
}

// plan sets b.runs.
func (c *comparer) plan(b *block) {
	b.runs = b.runs[:0]
	if c.blank {
		b.runs = append(b.runs, run{n: b.n})
		return
	}
	if !c.zeroes.Load() {
		c.segment(b, 0, b.n)
		return
	}
	start := 0 // of what is no zero run
	for at := 0; at < b.n; {
		end := c.zeroEnd(b, at)
		if end-at >= zeroRun {
			c.segment(b, start, at)
			b.runs = append(b.runs, run{off: at, n: end - at, zero: true})
			start = end
		}
		at = max(end, at+cellSize)
	}
	c.segment(b, start, b.n)
}

// zeroEnd returns where the run of zero cells that begins at a cell ends. A
// last cell that is cut by the end of the image does not count.
func (c *comparer) zeroEnd(b *block, at int) int {
	for at+cellSize <= b.n && bytes.Equal(b.buf[at:at+cellSize], c.zero) {
		at += cellSize
	}
	return at
}

// segment compares a range that the medium does not zero, and adds its runs.
func (c *comparer) segment(b *block, start, end int) {
	if start >= end {
		return
	}
	if !c.balance.wanted(end - start) {
		c.differs += int64(end - start)
		b.runs = append(b.runs, run{off: start, n: end - start})
		return
	}
	// The medium is read in whole cells, also where the image ends inside one.
	old := c.old[:roundUp(end-start)]
	began := c.now()
	got, _ := c.m.ReadAt(old, b.off+int64(start)) // what cannot be read differs: the read back decides
	took := c.now().Sub(began)
	equal, last := 0, len(b.runs)
	for at := start; at < end; at += cellSize {
		to := min(at+cellSize, end)
		if to-start <= got && bytes.Equal(b.buf[at:to], old[at-start:to-start]) {
			equal += to - at
			continue
		}
		c.differs += int64(to - at)
		if len(b.runs) > last && c.join(&b.runs[len(b.runs)-1], at, to) {
			continue
		}
		b.runs = append(b.runs, run{off: at, n: to - at})
	}
	c.done.skipped.Add(int64(equal))
	c.done.compared.Add(int64(end - start))
	c.balance.saw(end-start, equal, took, c.rate.perByte())
}

// join makes a run longer, over the cells that are right between it and the
// next one that differs, if they are few.
func (c *comparer) join(r *run, at, to int) bool {
	gap := at - (r.off + r.n)
	if gap > gapMax || (c.joined+int64(gap))*gapShare > c.differs {
		return false
	}
	c.joined += int64(gap)
	c.done.skipped.Add(-int64(gap))
	r.n = to - r.off
	return true
}

// roundUp makes whole cells of n bytes.
func roundUp(n int) int { return (n + cellSize - 1) &^ (cellSize - 1) }
