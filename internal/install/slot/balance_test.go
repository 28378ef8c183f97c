package slot

import (
	"testing"
	"time"
)

// TestBalance runs the rule against media that cost time, with images of which
// a share is equal, and holds what it costs against always and never comparing.
func TestBalance(t *testing.T) {
	const (
		total = 512 << 20
		step  = blockSize
	)
	for _, tt := range []struct {
		name        string
		read, write float64 // nanoseconds for a byte
		equal       func(at int) int
		most        float64 // cost, relative to the better of always and never
		proves      bool
	}{
		{"card, nothing equal", 1e3 / 80, 1e3 / 20, func(int) int { return 0 }, 1.02, false},
		{"eMMC, nothing equal", 1e3 / 150, 1e3 / 60, func(int) int { return 0 }, 1.03, false},
		{"reads as dear as writes, nothing equal", 1, 1, func(int) int { return 0 }, 1.05, false},
		{"card, nine tenths equal", 1e3 / 80, 1e3 / 20, func(int) int { return step * 9 / 10 }, 1.001, false},
		{"all equal", 1, 2, func(int) int { return step }, 1.001, false},
		{"all equal, reads are dear", 3, 2, func(int) int { return step }, 1.6, false}, // wear counts as well
		{"reads cost much more than they save", 10, 1, func(int) int { return step / 2 }, 1.4, false},
		{"the second half equal", 1, 4, func(at int) int { return step * (at * 2 / total) }, 1.3, false},
		{"reads are dear, but spare the reading back", 1, 0.6, func(int) int { return step * 7 / 10 }, 1.001, true},
		{"nothing equal, to be read back", 1, 4, func(int) int { return 0 }, 1.01, true},
		{"the first half equal", 1, 4, func(at int) int { return step * (1 - at*2/total) }, 1.05, false},
	} {
		b, r := newBalance(contentShare, tt.proves), rate{}
		cost, never, always := 0.0, 0.0, 0.0
		for at := 0; at < total; at += step {
			equal := tt.equal(at)
			back := 0.0
			if tt.proves {
				back = tt.read
			}
			always += step*tt.read + float64(step-equal)*(tt.write+back)
			never += step * (tt.write + back)
			if b.wanted(step) {
				cost += step * tt.read
				b.saw(step, equal, tt.read, r.perByte())
			} else {
				equal = 0
			}
			cost += float64(step-equal) * (tt.write + back)
			r.add(step-equal, time.Duration(float64(step-equal)*tt.write))
		}
		if got := cost / min(always, never); got > tt.most {
			t.Errorf("%s: costs %.3f of the better way (always %.2f s, never %.2f s), want at most %.3f", tt.name, got, always/1e9, never/1e9, tt.most)
		}
	}
}
