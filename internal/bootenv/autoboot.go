package bootenv

import (
	"bytes"
	"fmt"
	"strconv"
)

// maxAutoboot is the longest autoboot.txt that the firmware reads, in bytes;
// it is one sector, too, which is what makes a change of it atomic (source:
// Raspberry Pi documentation, autoboot.txt).
const maxAutoboot = 512

// autoboot is an autoboot.txt that selects one of two boot partitions:
//
//	[all]
//	tryboot_a_b=1
//	boot_partition=2
//	[tryboot]
//	boot_partition=3
//
// Lines behind [tryboot] count only in a boot that was asked for with the
// reboot argument "0 tryboot" (source: Raspberry Pi documentation,
// autoboot.txt and conditional filters).
type autoboot struct {
	text     []byte
	all, try bootPartition
}

// bootPartition is a number in the text.
type bootPartition struct {
	number     int
	start, end int // in bytes; both 0 if there is none
}

// section of an autoboot.txt.
type section uint8

const (
	sectionAll section = iota // also what stands before any section
	sectionTry
)

// parseAutoboot reads the file strictly. What it does not know might decide
// what boots, so it is [ErrUnsupported]; a file that selects nothing or that
// contradicts itself is [ErrCorrupt].
func parseAutoboot(text []byte) (autoboot, error) {
	a := autoboot{text: text}
	if len(text) > maxAutoboot {
		return a, fmt.Errorf("longer than %d bytes: %w", maxAutoboot, ErrUnsupported)
	}
	in, ab, offset := sectionAll, false, 0
	for line := range bytes.Lines(text) {
		start := offset
		offset += len(line)
		word := bytes.TrimSpace(line)
		if len(word) == 0 || word[0] == '#' {
			continue
		}
		if word[0] == '[' {
			var err error
			if in, err = parseSection(string(word)); err != nil {
				return a, err
			}
			continue
		}
		name, value, _ := bytes.Cut(word, []byte("="))
		switch string(name) {
		case "tryboot_a_b":
			if in != sectionAll || string(value) != "1" {
				return a, fmt.Errorf("%s: want tryboot_a_b=1 for all boots: %w", quote(string(word)), ErrUnsupported)
			}
			ab = true
		case "boot_partition":
			valueStart := start + bytes.IndexByte(line, '=') + 1
			if err := a.set(in, value, valueStart); err != nil {
				return a, err
			}
		default:
			return a, fmt.Errorf("%s: %w", quote(string(word)), ErrUnsupported)
		}
	}
	return a, a.check(ab)
}

func parseSection(word string) (section, error) {
	switch word {
	case "[all]":
		return sectionAll, nil
	case "[tryboot]":
		return sectionTry, nil
	default:
		return sectionAll, fmt.Errorf("section %s: %w", quote(word), ErrUnsupported)
	}
}

// set notes a boot_partition.
func (a *autoboot) set(in section, value []byte, start int) error {
	n, err := strconv.ParseUint(string(value), 10, 8)
	if err != nil || n == 0 {
		return fmt.Errorf("boot_partition=%s is not a partition number: %w", quote(string(value)), ErrCorrupt)
	}
	to := &a.all
	if in == sectionTry {
		to = &a.try
	}
	if to.end != 0 {
		return fmt.Errorf("boot_partition is set twice in one section: %w", ErrCorrupt)
	}
	*to = bootPartition{number: int(n), start: start, end: start + len(value)}
	return nil
}

func (a *autoboot) check(ab bool) error {
	switch {
	case !ab:
		return fmt.Errorf("tryboot_a_b=1 is missing: %w", ErrUnsupported)
	case a.all.end == 0 || a.try.end == 0:
		return fmt.Errorf("boot_partition is missing for all boots or in [tryboot]: %w", ErrCorrupt)
	case a.all.start > a.try.start:
		return fmt.Errorf("boot_partition for all boots comes after that in [tryboot], and overrides it: %w", ErrCorrupt)
	}
	return nil
}

// with returns the text with other numbers in place. A text of another length
// would change the directory entry besides the sector of the file, which is no
// longer one step, so that is [ErrUnsupported].
func (a *autoboot) with(all, try int) ([]byte, error) {
	var b bytes.Buffer
	b.Write(a.text[:a.all.start])
	b.WriteString(strconv.Itoa(all))
	b.Write(a.text[a.all.end:a.try.start])
	b.WriteString(strconv.Itoa(try))
	b.Write(a.text[a.try.end:])
	if b.Len() != len(a.text) {
		return nil, fmt.Errorf("boot partitions %d and %d change the length of the file: %w", all, try, ErrUnsupported)
	}
	return b.Bytes(), nil
}

// looksLikeAutoboot tells whether the text means to select a slot, whatever
// else is wrong with it.
func looksLikeAutoboot(text []byte) bool {
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(bytes.TrimSpace(line), []byte("tryboot_a_b=1")) {
			return true
		}
	}
	return false
}
