package medium

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// writeLog writes a log as the kernel does.
type writeLog struct {
	bytes.Buffer

	entries uint64
}

func (w *writeLog) entry(sector, sectors, flags uint64, data string) {
	var b [SectorSize]byte
	for i, v := range []uint64{sector, sectors, flags, 0} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	w.Write(b[:])
	w.WriteString(data)
	w.entries++
}

func (w *writeLog) whole() []byte {
	var b [SectorSize]byte
	for i, v := range []uint64{logMagic, logVersion, w.entries, SectorSize} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	return append(b[:], w.Bytes()...)
}

func sectors(c string, n int) string { return string(bytes.Repeat([]byte(c), n*SectorSize)) }

func TestReadLog(t *testing.T) {
	var w writeLog
	w.entry(0, 2, 0, sectors("a", 2))
	w.entry(0, 0, logFlush, "")
	w.entry(3, 1, logFUA, sectors("f", 1))
	w.entry(2, 1, 0, sectors("b", 1))
	w.entry(0, 0, logMark, "")
	w.entry(1, 1, logDiscard, "")
	w.entry(4, 1, logFlush|logFUA, sectors("c", 1))
	log := w.whole()
	tr, err := ReadLog(bytes.NewReader(log), newImage(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	err = tr.Walk(func(m Moment) error {
		for _, loss := range []Loss{Kept, Lost} {
			left, err := Lose(m, loss, nil)
			if err != nil {
				return err
			}
			text := ""
			for at := int64(0); at < 5*SectorSize; at += SectorSize {
				text += read(t, left, at, 1)
			}
			states = append(states, text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"-----", "-----", // nothing
		"aa---", "-----", // a write
		"aa---", "aa---", // its flush
		"aa-f-", "aa-f-", // durable by itself
		"aabf-", "aa-f-", // a write
		"a\x00bf-", "aa-f-", // a discard
		"a\x00bf-", "a\x00bf-", // the flush of the last one
		"a\x00bfc", "a\x00bfc", // and its write
	}
	if len(states) != len(want) {
		t.Fatalf("%d states, want %d: %q", len(states), len(want), states)
	}
	for i := range want {
		if states[i] != want[i] {
			t.Errorf("state %d: %q, want %q", i, states[i], want[i])
		}
	}
}

func TestReadLogRefuses(t *testing.T) {
	var w writeLog
	w.entry(0, 1, 0, sectors("a", 1))
	good := w.whole()
	change := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	for name, log := range map[string][]byte{
		"nothing":         nil,
		"other magic":     change(0, 1),
		"other version":   change(8, 2),
		"small sectors":   change(25, 1),
		"behind the disk": change(SectorSize+6, 1),
		"too long":        change(SectorSize+10, 1),
		"cut":             good[:len(good)-1],
		"cut entry":       good[:SectorSize+10],
	} {
		if _, err := ReadLog(bytes.NewReader(log), newImage(t), nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := ReadLog(bytes.NewReader(change(0, 1)), newImage(t), nil); !errors.Is(err, errLog) {
		t.Errorf("other magic: %v", err)
	}
}
