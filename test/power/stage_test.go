package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
	"github.com/usb-updater/usb-updater/test/medium"
	"github.com/usb-updater/usb-updater/test/power/judge"
)

// testLayout is a disk of 4 MiB without a data partition.
var testLayout = layout{
	env:   [2]span{{0, 16 << 10}, {16 << 10, 16 << 10}},
	slots: [2]span{{1 << 20, 1 << 20}, {2 << 20, 1 << 20}},
	data:  span{3 << 20, 1 << 20},
}

// story is a life that is written down.
type story struct {
	t     *testing.T
	life  *life
	flags byte
}

func newStory(t *testing.T) *story {
	t.Helper()
	m, err := medium.NewImage(bytes.NewReader(nil), 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	s := &story{t: t, flags: 1, life: &life{plug: -1}}
	for i := range 2 {
		if _, err := m.WriteAt(s.env("2", "0", "0"), testLayout.env[i].off); err != nil {
			t.Fatal(err)
		}
	}
	s.life.trace = medium.NewTrace(m, nil)
	return s
}

func (s *story) env(part, upgrade, count string) []byte {
	s.t.Helper()
	vars := map[string]string{"mender_boot_part": part, "mender_boot_part_hex": part, "upgrade_available": upgrade, "bootcount": count}
	b, err := bootenvtest.EncodeImage(vars, 16<<10, &s.flags)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *story) write(off int64, b []byte) {
	s.life.trace.Add(medium.Entry{Off: off, Length: int64(len(b)), Data: b})
}

func (s *story) flush() { s.life.trace.Add(medium.Entry{Flush: true}) }

// save writes the environment in one request, as a boot loader does, or in two
// phases.
func (s *story) save(part, upgrade, count string, phases int) {
	s.t.Helper()
	s.flags++
	b, at := s.env(part, upgrade, count), testLayout.env[s.flags%2].off
	if phases == 2 {
		invalid := bytes.Clone(b)
		invalid[0] = ^invalid[0]
		s.write(at, invalid)
		s.flush()
		b = b[:512]
	}
	s.write(at, b)
	if phases == 2 {
		s.flush()
	}
}

func (s *story) boot(slot int, trial bool) {
	s.life.boots = append(s.life.boots, boot{index: s.life.trace.Len(), slot: slot, trial: trial})
}

// update is what an update asks of the disk, up to the reboot.
func (s *story) update() {
	s.boot(0, false)
	s.write(testLayout.slots[0].off, []byte("own"))
	s.life.plug = s.life.trace.Len()
	s.write(testLayout.data.off, []byte("attempt"))
	s.flush()
	s.write(testLayout.slots[1].off, []byte("new"))
	s.write(testLayout.slots[1].off+8192, []byte("new"))
	s.flush()
	s.write(testLayout.data.off, []byte("installing"))
	s.flush()
	s.save("3", "1", "0", 2)
	s.write(testLayout.data.off, []byte("waiting"))
	s.flush()
}

func TestStages(t *testing.T) {
	c := &checker{lay: testLayout, dir: t.TempDir()}
	commit := newStory(t)
	commit.update()
	commit.save("3", "1", "1", 1) // the boot loader
	commit.boot(1, true)
	commit.write(testLayout.slots[1].off, []byte("own"))
	commit.save("3", "0", "0", 2)
	commit.write(testLayout.data.off, []byte("done"))
	commit.flush()

	back := newStory(t)
	back.update()
	back.save("3", "1", "1", 1)
	back.boot(1, true)
	back.save("2", "0", "0", 1)
	back.boot(0, false)

	for _, tt := range []struct {
		name string
		life *life
		want string
	}{
		{"commit", commit.life, "recover 0, insert 1, write 3, record 6, arm 8, armed 12, trial 14, confirm 16, close 20"},
		{"the boot loader goes back", back.life, "recover 0, insert 1, write 3, record 6, arm 8, armed 12, trial 14, confirm 15, close 16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			marks, err := c.stages(tt.life)
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(marks); got != tt.want {
				t.Errorf("stages: %s\nwant:   %s", got, tt.want)
			}
		})
	}
}

// TestWholeSlot: a slot counts as whole with what its own system wrote, until
// an update begins to write to it.
func TestWholeSlot(t *testing.T) {
	c := &checker{lay: testLayout, dir: t.TempDir()}
	s := newStory(t)
	s.update()
	content := make([]byte, 1<<20)
	copy(content, "new")
	copy(content[8192:], "new")
	releases := []release{{"old", make([]byte, 1<<20)}, {"new", content}}
	w, err := c.newWatch(s.life.trace.Start, releases, cloneOwn(s.life.own))
	if err != nil {
		t.Fatal(err)
	}
	entries := s.life.trace.Entries()
	var got []string
	err = s.life.trace.Walk(func(m medium.Moment) error {
		if m.Index > 0 {
			s.life.touch(&w.own, c.lay, m.Index-1, &entries[m.Index-1])
			if entries[m.Index-1].Flush {
				for i := range m.Index {
					if err := w.durable(m.Durable, &entries[i]); err != nil {
						return err
					}
				}
			}
		}
		left, err := medium.Lose(m, medium.Kept, nil)
		if err != nil {
			return err
		}
		content, err := w.of(left)
		if line := strings.Join(content.whole[:], "|"); len(got) == 0 || got[len(got)-1] != line {
			got = append(got, line)
		}
		return err
	})
	if want := "old|old old| old|new"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("slots: %q, %v; want %q", got, err, want)
	}
}

// TestJudge: of a disk on which nothing happened, on which a trial has no
// record, and on which the trial's slot is not whole.
func TestJudge(t *testing.T) {
	if _, err := exec.LookPath("mke2fs"); err != nil {
		t.Skip("needs mke2fs")
	}
	for _, tt := range []struct {
		name  string
		armed bool
		slot  string // content of slot B
		want  string
	}{
		{"steady", false, "", "A boots, old in the end"},
		{"no record", true, "new", "a trial that no record explains"},
		{"not whole", true, "ne", "slot B boots and is not whole"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &checker{lay: testLayout, dir: t.TempDir(), known: map[key]judge.Verdict{}}
			s := newStory(t)
			if tt.armed {
				s.save("3", "1", "0", 2)
			}
			s.write(testLayout.slots[1].off, []byte(tt.slot))
			s.write(testLayout.data.off, dataPartition(t))
			m, err := s.life.trace.At(s.life.trace.Len(), medium.Kept, rand.New(rand.NewPCG(1, 1)))
			if err != nil {
				t.Fatal(err)
			}
			releases := []release{{"old", make([]byte, 1<<20)}, {"new", append([]byte("new"), make([]byte, 1<<20-3)...)}}
			if !tt.armed {
				releases = releases[:1]
			}
			w, err := c.newWatch(m, releases, cloneOwn([2]blockSet{}))
			if err != nil {
				t.Fatal(err)
			}
			v, err := c.judge(context.Background(), w, m.Over())
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(v.Violations, "; ")
			if got == "" {
				got = v.Boots + " boots, " + v.Runs + " in the end"
			}
			if got != tt.want {
				t.Errorf("judged %q, want %q", got, tt.want)
			}
		})
	}
}

// dataPartition is one with Mender's directory.
func dataPartition(t *testing.T) []byte {
	t.Helper()
	dir, image := t.TempDir(), filepath.Join(t.TempDir(), "data")
	writeFile(t, filepath.Join(dir, "mender", "device_type"), "device_type=virtual-device\n")
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", dir, image, "1M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	return readFile(t, image)
}

// TestNamesAfter: a cut may have left the update before armed, and the device
// starts from there into the next one.
func TestNamesAfter(t *testing.T) {
	got := namesAfter([]string{"release-1", "release-5", "release-4"}, "release-1", "release-6")
	if want := "release-1 release-6 release-5"; strings.Join(got, " ") != want {
		t.Errorf("names %q, want %q", got, want)
	}
}
