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

// part is a range of a block that is treated as one: a run of zeros that the
// medium can make, or what is between two of them.
type part struct {
	off, n  int
	zero    bool
	compare bool
}

// comparer is the stage that finds out which bytes have to change.
type comparer struct {
	m        medium
	now      func() time.Time
	zeroes   *atomic.Bool // the medium makes zeros by command
	blank    bool         // the medium was erased: there is nothing to compare with
	zero     []byte       // a cell
	parts    []part       // of the block at hand
	held     window
	content  balance
	zeros    balance
	rate     *rate
	expected *expected // nil: nobody asks what was found
	done     *counters

	differs int64 // bytes in all
	joined  int64 // bytes of gaps that are written although they are right
}

// window is what the medium held before anything was written there.
type window struct {
	buf  []byte
	off  int64   // of the partition
	got  int     // bytes that could be read
	size int     // bytes that were asked for
	cost float64 // nanoseconds for a byte
}

// plan sets b.runs.
func (c *comparer) plan(b *block) {
	b.runs = b.runs[:0]
	c.split(b)
	for i := range c.parts {
		c.read(b, i)
		switch p := c.parts[i]; {
		case !p.compare:
			b.runs = append(b.runs, run{off: p.off, n: p.n, zero: p.zero})
			if !p.zero {
				c.differs += int64(p.n)
			}
		case p.zero:
			c.compareZeros(b, p)
		default:
			c.compareContent(b, p)
		}
	}
	if c.expected != nil {
		c.expected.add(b)
	}
}

// split sets c.parts, and which of them are to be compared.
//
// Zeros that the medium makes by command are compared only while the rest is,
// and only if they would be read back otherwise: then it costs nothing, and
// those that are there already are left alone.
func (c *comparer) split(b *block) {
	c.parts = c.parts[:0]
	start := 0 // of what is no zero run
	zeros := 0
	if c.zeroes.Load() {
		for at := 0; at < b.n; {
			end := c.zeroEnd(b, at)
			if end-at >= zeroRun {
				if start < at {
					c.parts = append(c.parts, part{off: start, n: at - start})
				}
				c.parts = append(c.parts, part{off: at, n: end - at, zero: true})
				start, zeros = end, zeros+end-at
			}
			at = max(end, at+cellSize)
		}
	}
	if start < b.n {
		c.parts = append(c.parts, part{off: start, n: b.n - start})
	}
	content := !c.blank && zeros < b.n && c.content.wanted(b.n-zeros)
	zero := zeros > 0 && c.zeros.proves && !c.content.off && c.zeros.wanted(zeros)
	for i := range c.parts {
		c.parts[i].compare = content
		if c.parts[i].zero {
			c.parts[i].compare = zero
		}
	}
}

// zeroEnd returns where the run of zero cells that begins at a cell ends. A
// last cell that is cut by the end of the image does not count.
func (c *comparer) zeroEnd(b *block, at int) int {
	for at+cellSize <= b.n && bytes.Equal(b.buf[at:at+cellSize], c.zero) {
		at += cellSize
	}
	return at
}

// read makes c.held cover part i, if that is to be compared. Parts that follow
// each other are read at once; and where all of a block is, so is the next one.
func (c *comparer) read(b *block, i int) {
	p := c.parts[i]
	off := b.off + int64(p.off)
	if !p.compare || off >= c.held.off && off+int64(p.n) <= c.held.off+int64(c.held.size) {
		return
	}
	end := p.off + p.n
	for _, next := range c.parts[i+1:] {
		if !next.compare {
			break
		}
		end = next.off + next.n
	}
	// The medium is read in whole cells, also where the image ends inside one.
	n := roundUp(end - p.off)
	if n == blockSize {
		n = len(c.held.buf)
	}
	began := c.now()
	got, _ := c.m.ReadAt(c.held.buf[:n], off) // what cannot be read differs: the read back decides
	took := c.now().Sub(began)
	c.held.off, c.held.size, c.held.got, c.held.cost = off, n, got, float64(took)/float64(n)
}

// holds reports whether the medium held a cell of the image already.
func (c *comparer) holds(b *block, at, to int) bool {
	from := int(b.off + int64(at) - c.held.off)
	return from+to-at <= c.held.got && bytes.Equal(b.buf[at:to], c.held.buf[from:from+to-at])
}

// compareContent adds the runs of a part by the cell.
func (c *comparer) compareContent(b *block, p part) {
	equal, last := 0, len(b.runs)
	end := p.off + p.n
	for at := p.off; at < end; at += cellSize {
		to := min(at+cellSize, end)
		if c.holds(b, at, to) {
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
	c.done.compared.Add(int64(p.n))
	c.content.saw(p.n, equal, c.held.cost, c.rate.perByte())
}

// compareZeros adds one command for what is between the first and the last
// cell that is not zero yet, or single runs if that is short.
func (c *comparer) compareZeros(b *block, p part) {
	first, last, equal := p.off+p.n, p.off, 0
	for at := p.off; at < p.off+p.n; at += cellSize {
		if c.holds(b, at, at+cellSize) {
			equal += cellSize
			continue
		}
		first, last = min(first, at), at+cellSize
	}
	c.zeros.saw(p.n, equal, c.held.cost, 0)
	c.done.compared.Add(int64(p.n))
	if first >= last {
		c.done.skipped.Add(int64(p.n))
		return
	}
	b.runs = append(b.runs, run{off: first, n: last - first, zero: last-first >= zeroRun})
	c.done.skipped.Add(int64(p.n - (last - first)))
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
