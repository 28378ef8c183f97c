//go:build device

package hostile

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/usb-updater/usb-updater/test/fuse"
	"github.com/usb-updater/usb-updater/test/tier"
)

// last is a file that the inspector reads behind the artifact.
const last = "z.mender"

// forgetful is where the kernel is told to forget what it has read.
const forgetful = "/proc/sys/vm/drop_caches"

// lie is how a medium lies: from its nth read on, each sector of a part of the
// file system holds something else.
type lie struct {
	places []region
	nth    int
	// content is what it holds then. whole says that all of the medium does,
	// once a sector of the part was read that often.
	content func(sector int64, honest []byte) []byte
	whole   bool
}

// liar is a medium that counts how often each of its sectors is read, and lies.
type liar struct {
	lie      lie
	hold     region // in the last file
	mu       sync.Mutex
	reads    map[int64]int // of the byte that a sector begins with
	lying    bool          // about everything
	told     int           // lies that differ from the truth
	forgot   bool
	complain func(error)
}

// answer is called before a read is answered.
func (l *liar) answer(_ string, offset int64, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := offset + int64(len(p))
	if !l.forgot && offset < l.hold.to && end > l.hold.from {
		// The inspector is done with the artifact, and the agent has not begun. A
		// device with little memory forgets by itself what it has read.
		l.forgot = true
		if err := os.WriteFile(forgetful, []byte("3"), 0); err != nil {
			l.complain(err)
		}
	}
	for at := offset; at < end; at += sector {
		l.reads[at]++
		inside := within(l.lie.places, at) && l.reads[at] >= l.lie.nth
		l.lying = l.lying || inside && l.lie.whole
		if l.lie.content == nil || !inside && !l.lying {
			continue
		}
		honest := p[at-offset : min(at-offset+sector, int64(len(p)))]
		if other := l.lie.content(at, honest); !bytes.Equal(honest, other) {
			l.told++
			copy(honest, other)
		}
	}
}

func within(places []region, at int64) bool {
	for _, r := range places {
		if r.from <= at && at < r.to {
			return true
		}
	}
	return false
}

// most is how often the sector of these places was read that was read most.
func (l *liar) most(places []region) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := 0
	for at, n := range l.reads {
		if within(places, at) {
			most = max(most, n)
		}
	}
	return most
}

// plugLiar gives the agent a medium that lies.
func (r *rig) plugLiar(t *testing.T, content []byte, hold region, how lie) (*liar, outcome) {
	t.Helper()
	l := &liar{lie: how, hold: hold, reads: map[int64]int{}, complain: func(err error) { t.Error(err) }}
	s := fuse.NewStick(files{image: content})
	s.Answer = l.answer
	m := newMedium(t, s)
	o := r.run(t, m.loop)
	m.end(t)
	return l, o
}

// TestDefenseD03LyingMedium: a disk below a file system that changes its answer,
// in each part of the file system and at each read that the kernel makes of it.
// The kernel is made to forget what it has read between the inspection and the
// installation. What is installed in spite of it is what was signed, or the old
// slot stays as it is.
func TestDefenseD03LyingMedium(t *testing.T) {
	needLoop(t, "mkfs.vfat", "mcopy", "xorriso")
	if f, err := os.OpenFile(forgetful, os.O_WRONLY, 0); err != nil {
		tier.Device.Lack(t, forgetful+", to write to it")
	} else if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range formats() {
		t.Run(f.name, func(t *testing.T) {
			f.need(t)
			checkLyingMedium(t, f)
		})
	}
}

func checkLyingMedium(t *testing.T, f format) {
	t.Helper()
	r := newRig(t)
	content, note := r.packed(t, "release-2"), bytes.Repeat([]byte("no artifact "), 512)
	honest := f.make(t, files{name: content, last: note})
	other := f.make(t, files{name: r.packed(t, "release-3"), last: note})
	places := f.places(t, honest, content)
	hold := contiguous(t, honest, note[:sector])[0]

	l, o := r.plugLiar(t, honest, hold, lie{})
	if !r.safe(t, o, "release-2") {
		t.Fatalf("an honest medium is not installed:\n%s", o.log)
	}
	for _, part := range f.again {
		if n := l.most(places[part]); n < 2 {
			t.Errorf("%s: read %d times: it has no time to change", part, n)
		}
	}
	other = append(other, make([]byte, max(0, len(honest)-len(other)))...)
	ofOther := func(at int64, honest []byte) []byte { return other[at:][:len(honest)] }
	kinds := map[string]lie{
		"zeros":          {content: func(_ int64, honest []byte) []byte { return make([]byte, len(honest)) }},
		"garbage":        {content: func(at int64, honest []byte) []byte { return noise(len(honest), byte(at/sector)) }},
		"another's":      {content: ofOther},
		"another medium": {content: ofOther, whole: true},
	}
	results := map[string]int{}
	for _, part := range sorted(places) {
		most := l.most(places[part])
		if most == 0 {
			t.Errorf("%s: not read at all", part)
		}
		for nth := 1; nth <= most; nth++ {
			told := 0
			for _, kind := range sorted(kinds) {
				how := kinds[kind]
				how.places, how.nth = places[part], nth
				t.Run(fmt.Sprintf("%s/read %d/%s", part, nth, kind), func(t *testing.T) {
					n, result := lied(t, honest, hold, how)
					told += n
					results[result]++
				})
			}
			if told == 0 {
				t.Errorf("%s: no lie was told from read %d on", part, nth)
			}
		}
	}
	t.Logf("results: %v", results)
}

// lied runs a device of its own with a medium that lies, and returns how many
// lies it told and what came of it.
func lied(t *testing.T, honest []byte, hold region, how lie) (told int, result string) {
	t.Helper()
	r := newRig(t)
	before := r.snapshot(t)
	l, o := r.plugLiar(t, honest, hold, how)
	after := r.snapshot(t)
	if old := "dev/mmcblk0p2"; after[old] != before[old] {
		t.Errorf("the running slot has changed:\n%s", o.log)
	}
	release := "release-2"
	if slot, err := os.ReadFile(r.dev.Slot(3)); err != nil {
		t.Fatal(err)
	} else if bytes.HasPrefix(slot, r.images["release-3"]) {
		release = "release-3" // as good, from the other medium
	}
	if r.safe(t, o, release) {
		r.boots(t, 3)
		return l.told, o.result
	}
	o.oneOf(t, append(refusals(), "not-for-device")...)
	if !strings.Contains(o.log, ": installing") { // seen before anything was written
		r.unchanged(t, before)
	}
	r.boots(t, 2)
	return l.told, o.result
}
