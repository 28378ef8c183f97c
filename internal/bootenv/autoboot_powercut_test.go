package bootenv

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// padded fills a text up to whole sectors with blank lines.
func padded(text string, sectors int) []byte {
	return append([]byte(text), bytes.Repeat([]byte("\n"), sectors*sectorSize-len(text))...)
}

const (
	autobootOld = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"
	autobootNew = "[all]\ntryboot_a_b=1\nboot_partition=3\n[tryboot]\nboot_partition=2\n"
)

// TestPowerCutTryboot cuts each change of autoboot.txt at each step: the file
// is the old one or the new one.
func TestPowerCutTryboot(t *testing.T) {
	for _, change := range []struct {
		name           string
		permanent, try Slot
	}{{"confirm", B, A}, {"revert", A, A}, {"arm after a revert", A, B}} {
		start := padded(autobootOld, 1)
		if change.try == B {
			start = padded(strings.Replace(autobootOld, "=3", "=2", 1), 1)
		}
		d := &disk{data: bytes.Clone(start)}
		loader := &Tryboot{path: "autoboot.txt", parts: Parts{2, 3}, open: func(bool) (medium, error) {
			return diskCopy{d, Copy{Path: "disk", Size: sectorSize}}, nil
		}}
		if err := loader.update(change.permanent, change.try); err != nil {
			t.Fatalf("%s: %v", change.name, err)
		}
		end := bytes.Clone(d.data)
		before, after, bad := 0, 0, 0
		afterCut(start, d.log, cut, func(image []byte) {
			switch _, err := parseAutoboot(image); {
			case err == nil && bytes.Equal(image, start):
				before++
			case err == nil && bytes.Equal(image, end):
				after++
			default:
				bad++
			}
		})
		t.Logf("%-20s old %d  new %d  bad %d", change.name, before, after, bad)
		if bad != 0 || before == 0 || after == 0 {
			t.Errorf("%s: old %d, new %d, bad %d states, want some, some, 0", change.name, before, after, bad)
		}
	}
}

// TestPowerCutTwoSectors shows that the enumeration can fail, and why a longer
// file is refused.
func TestPowerCutTwoSectors(t *testing.T) {
	spread := func(text string) []byte {
		head, tail, _ := strings.Cut(text, "[tryboot]")
		return append(padded(head, 1), padded("[tryboot]"+tail, 1)...)
	}
	start, end := spread(autobootOld), spread(autobootNew)
	d := &disk{data: bytes.Clone(start)}
	if err := writeDifference(diskCopy{d, Copy{Path: "disk", Size: len(start)}}, start, end); err != nil {
		t.Fatal(err)
	}
	mixed := 0
	afterCut(start, d.log, cut, func(image []byte) {
		if !bytes.Equal(image, start) && !bytes.Equal(image, end) {
			mixed++
		}
	})
	if mixed == 0 {
		t.Error("a change of two sectors survived every cut")
	}
}

func TestTrybootReadsBack(t *testing.T) {
	for name, d := range map[string]*disk{
		"writes get lost": {data: padded(autobootOld, 1), lie: true},
		"flush fails":     {data: padded(autobootOld, 1), syncErr: func(int) error { return errors.New("broken") }},
	} {
		loader := &Tryboot{path: "autoboot.txt", parts: Parts{2, 3}, open: func(bool) (medium, error) {
			return diskCopy{d, Copy{Path: "disk", Size: sectorSize}}, nil
		}}
		if err := loader.update(B, A); err == nil || d.lie && !errors.Is(err, ErrVerify) {
			t.Errorf("%s: update = %v", name, err)
		}
	}
}

// FuzzAutoboot checks that no input panics, and that what is accepted can be
// changed there and back.
func FuzzAutoboot(f *testing.F) {
	f.Add([]byte(autobootOld))
	f.Add([]byte("tryboot_a_b=1\r\nboot_partition=2\r\n[tryboot]\r\nboot_partition=10"))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := parseAutoboot(text)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("parseAutoboot = %v, want ErrCorrupt or ErrUnsupported", err)
			}
			return
		}
		swapped, err := a.with(a.try.number, a.all.number)
		if err != nil {
			return
		}
		b, err := parseAutoboot(swapped)
		if err != nil || b.all.number != a.try.number || b.try.number != a.all.number {
			t.Fatalf("after the exchange of %q: %q, %v", text, swapped, err)
		}
		if back, err := b.with(a.all.number, a.try.number); err == nil && !bytes.Equal(back, text) && !strings.Contains(string(text), "=0") {
			t.Fatalf("there and back: %q, want %q", back, text)
		}
	})
}
