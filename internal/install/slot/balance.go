package slot

import (
	"sync/atomic"
	"time"
)

// balance decides whether to read what the medium holds before it is written.
//
// It counts in windows. After each the reading goes on if what it found equal
// is at least one part in share of what it read, and if that has spared at
// least half of the time of the reading: half, because a write that is spared is
// also wear that is spared. What is equal spares its write and, where what was
// compared need not be read back, that reading, too. The fastest read of the
// window stands for all: the others waited for the processor, or for a write.
// Else it stops, and tries again with a small window after a while. It never
// stops before the first window is full, so that an image of which only the
// beginning is right, because its installation was interrupted, is seen to be so.
type balance struct {
	share   int64 // what must be equal at least: one part in so many
	proves  bool  // what is equal need not be read back
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
	wearFactor  = 2

	// contentShare is the share of content, which costs a write.
	contentShare = 16
	// zeroShare is that of zeros which the medium would make by command: they
	// cost no write, only the reading back.
	zeroShare = 2
)

func newBalance(share int64, proves bool) balance {
	return balance{share: share, proves: proves, window: firstWindow}
}

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

// saw takes what comparing n bytes has shown. cost is the time that reading a
// byte took, and perByte what writing one takes, 0 if that is not known or
// nothing; both in nanoseconds.
func (b *balance) saw(n, equal int, cost, perByte float64) {
	if n == 0 {
		return
	}
	if b.read == 0 || cost < b.fastest {
		b.fastest = cost
	}
	b.read += int64(n)
	b.equal += int64(equal)
	if b.read < b.window {
		return
	}
	b.off = b.equal*b.share < b.read
	if perByte > 0 {
		spared := float64(b.equal) * perByte * wearFactor
		if b.proves {
			spared += float64(b.equal) * b.fastest
		}
		b.off = b.off || float64(b.read)*b.fastest > spared
	}
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
