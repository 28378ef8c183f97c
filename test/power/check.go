package main

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"

	"github.com/usb-updater/usb-updater/test/medium"
	"github.com/usb-updater/usb-updater/test/power/judge"
)

// checker judges what a power cut left on a disk, without starting it.
type checker struct {
	lay   layout
	dir   string // scratch, in memory
	keep  string // file for the disk of the first violation of a life, "" for none
	known map[key]judge.Verdict
}

// key is all that a verdict depends on.
type key struct {
	content
	env [sha256.Size]byte
}

// judge tells what becomes of a device with the image, over which w watches.
func (c *checker) judge(ctx context.Context, w *watch, m *medium.Image) (judge.Verdict, error) {
	env, err := c.readEnv(m)
	if err != nil {
		return judge.Verdict{}, err
	}
	content, err := w.of(m)
	if err != nil {
		return judge.Verdict{}, err
	}
	k := key{content, sha256.Sum256(env)}
	if v, ok := c.known[k]; ok {
		return v, nil
	}
	v, err := judge.Live(ctx, c.dir, judge.Disk{
		Env: env, Whole: content.whole,
		Data: func(path string) error { return m.Save(path, c.lay.data.off, c.lay.data.size) },
	})
	if err == nil {
		c.known[k] = v
	}
	return v, err
}

// tally is what the moments of one life came to.
type tally struct {
	States     int            `json:"states"`  // that were judged
	Unique     int            `json:"unique"`  // different in what matters
	Moments    map[stage]int  `json:"moments"` // by stage
	Outcomes   map[string]int `json:"outcomes"`
	Violations map[string]int `json:"violations,omitempty"`
	First      []example      `json:"examples,omitempty"` // of violations
}

type example struct {
	Index     int         `json:"index"`
	Loss      medium.Loss `json:"loss"`
	Stage     stage       `json:"stage"`
	Violation string      `json:"violation"`
}

// maxExamples bounds what is told of violations.
const maxExamples = 10

// walk judges each moment of a life, with each loss; random ones draws times.
func (c *checker) walk(ctx context.Context, l *life, releases []release, draws int, seed uint64) (tally, error) {
	t := tally{Moments: map[stage]int{}, Outcomes: map[string]int{}, Violations: map[string]int{}}
	marks, err := c.stages(l)
	if err != nil {
		return t, err
	}
	entries := l.trace.Entries()
	own := cloneOwn(l.own)
	w, err := c.newWatch(l.trace.Start, releases, own)
	if err != nil {
		return t, err
	}
	c.known = map[key]judge.Verdict{} // of this life: a whole slot depends on its releases
	applied, noted := 0, 0            // entries that are durable; whose writer is known
	err = l.trace.Walk(func(m medium.Moment) error {
		for ; noted < m.Index; noted++ {
			if s := l.touch(&w.own, c.lay, noted, &entries[noted]); s >= 0 {
				if err := w.rescan(m.Durable, s); err != nil {
					return err
				}
			}
		}
		for ; applied < m.Index-len(m.Pending); applied++ {
			if err := w.durable(m.Durable, &entries[applied]); err != nil {
				return err
			}
		}
		if m.Index%thin(m.Pending) != 0 {
			return ctx.Err()
		}
		at := stageAt(marks, m.Index)
		t.Moments[at]++
		for _, loss := range medium.Losses {
			n := draws
			if loss == medium.Kept || loss == medium.Lost {
				n = 1
			}
			if len(m.Pending) == 0 && loss != medium.Kept || len(m.Pending) == 1 && loss == medium.Some {
				continue // the same
			}
			for k := range n {
				rng := rand.New(rand.NewPCG(seed+uint64(k), uint64(m.Index))) //nolint:gosec // repeatable on purpose
				left, err := medium.Lose(m, loss, rng)
				if err != nil {
					return err
				}
				v, err := c.judge(ctx, w, left)
				if err != nil {
					return err
				}
				if len(v.Violations) > 0 && len(t.Violations) == 0 && c.keep != "" {
					if err := left.Save(c.keep, 0, left.Size()); err != nil {
						return err
					}
				}
				t.add(v, example{Index: m.Index, Loss: loss, Stage: at})
			}
		}
		return ctx.Err()
	})
	t.Unique = len(c.known)
	return t, err
}

// thinAbove is how much may be pending for each moment to be judged: 2 MiB.
const thinAbove = 2 << 20

// thin tells how many moments there are for one that is judged: while a slot is
// written, much is pending, and the next moment differs by one request of many.
func thin(pending []medium.Entry) int {
	var sum int64
	for i := range pending {
		sum += int64(len(pending[i].Data))
	}
	return 1 + int(sum/thinAbove)
}

// durable takes note of a write that is on the medium now.
func (w *watch) durable(m *medium.Image, e *medium.Entry) error {
	for n := e.Off / medium.BlockSize; n*medium.BlockSize < e.Off+e.Length; n++ {
		if err := w.block(m, n); err != nil {
			return err
		}
	}
	return nil
}

func (t *tally) add(v judge.Verdict, e example) {
	t.States++
	if len(v.Violations) == 0 {
		t.Outcomes[v.Boots+" boots, "+v.Runs+" in the end"]++
	}
	for _, text := range v.Violations {
		t.Violations[text]++
		if e.Violation = text; len(t.First) < maxExamples && t.Violations[text] <= 2 {
			t.First = append(t.First, e)
		}
	}
}
