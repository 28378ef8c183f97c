package main

import (
	"fmt"
	"strings"
)

// stage is a part of an update's life, by what is on the medium. docs/design/power-cut.md
// numbers the writes.
type stage string

// The stages, in their order.
const (
	stageRecover stage = "recover" // from power-on until the device is at rest
	stageInsert  stage = "insert"  // stick plugged in; write 2
	stageWrite   stage = "write"   // write 3: the slot, up to its flush
	stageRecord  stage = "record"  // slot read back; write 5
	stageArm     stage = "arm"     // write 6
	stageArmed   stage = "armed"   // write 7; the shutdown
	stageTrial   stage = "trial"   // the boot loader counts the trial; boot, health check; write 8
	stageSettle  stage = "confirm" // write 9, or the same for a rollback
	stageClose   stage = "close"   // write 10 and what follows
)

// updateStages are those that each update must have been cut in.
var updateStages = []stage{stageInsert, stageWrite, stageRecord, stageArm, stageArmed, stageTrial, stageSettle, stageClose}

// mark says from which index on a stage lasts.
type mark struct {
	from  int
	stage stage
}

// stages finds the stages of a life by the requests themselves: it needs no
// word of the product.
func (c *checker) stages(l *life) ([]mark, error) {
	marks := []mark{{0, stageRecover}}
	if l.plug < 0 {
		return marks, nil
	}
	marks = append(marks, mark{l.plug, stageInsert})
	target := 1 - l.running(l.plug)
	entries := l.trace.Entries()
	env, err := c.newEnvReader(l.trace.Start)
	if err != nil {
		return nil, err
	}
	last := func() stage { return marks[len(marks)-1].stage }
	slotFlushed := 0
	for i := range entries {
		e := &entries[i]
		if i < l.plug {
			if err := env.apply(e); err != nil {
				return nil, err
			}
			continue
		}
		if !e.Flush && c.lay.slotOf(e.Off) == target && l.running(i) != target {
			if last() == stageInsert {
				marks = append(marks, mark{i, stageWrite})
			}
			slotFlushed = 0
		}
		if e.Flush && last() == stageWrite && slotFlushed == 0 {
			slotFlushed = i + 1
		}
		if e.Flush || !c.lay.inEnv(e.Off) {
			continue
		}
		if err := env.apply(e); err != nil {
			return nil, err
		}
		marks = env.advance(marks, i, slotFlushed)
	}
	// A stage that lasts until its data is durable ends with that flush.
	for i := range marks {
		if s := marks[i].stage; s == stageArmed || s == stageClose {
			for marks[i].from < len(entries) && !entries[marks[i].from-1].Flush {
				marks[i].from++
			}
		}
	}
	return marks, nil
}

// advance appends the stage that begins with the write to the environment at the
// index.
func (r *envReader) advance(marks []mark, i, slotFlushed int) []mark {
	armed, counted := r.vars["upgrade_available"] == "1", r.vars["bootcount"] == "1"
	for {
		switch last := marks[len(marks)-1].stage; {
		case last == stageWrite && slotFlushed > 0:
			marks = append(marks, mark{slotFlushed, stageRecord})
			continue
		case last == stageInsert, last == stageWrite, last == stageRecord:
			return append(marks, mark{i, stageArm}) // nothing of the slot had to be written, perhaps
		case last == stageArm && armed:
			return append(marks, mark{i + 1, stageArmed})
		case last == stageArmed && counted:
			return append(marks, mark{i, stageTrial})
		case last == stageArmed && !armed:
			return append(marks, mark{i, stageSettle}, mark{i + 1, stageClose})
		case last == stageTrial && armed:
			return append(marks, mark{i, stageSettle})
		case last == stageTrial, last == stageSettle && !armed: // the boot loader's way back is one write
			if last == stageTrial {
				marks = append(marks, mark{i, stageSettle})
			}
			return append(marks, mark{i + 1, stageClose})
		}
		return marks
	}
}

// stageAt returns the stage of a moment.
func stageAt(marks []mark, index int) stage {
	at := marks[0].stage
	for _, m := range marks {
		if m.from <= index {
			at = m.stage
		}
	}
	return at
}

// bounds returns the first and the last moment of a stage; ok is false if the
// life has none.
func bounds(marks []mark, s stage, end int) (first, last int, ok bool) {
	for i, m := range marks {
		if m.stage != s {
			continue
		}
		last = end
		if i+1 < len(marks) {
			last = max(m.from, marks[i+1].from-1)
		}
		return m.from, last, true
	}
	return 0, 0, false
}

func describe(marks []mark) string {
	var words []string
	for _, m := range marks {
		words = append(words, fmt.Sprintf("%s %d", m.stage, m.from))
	}
	return strings.Join(words, ", ")
}
