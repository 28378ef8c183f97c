package sim

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// SpoilEnv changes a byte in the copy that is in force, in the other one, or in
// both ("active", "other", "both").
func (d *Device) SpoilEnv(which string) error {
	_, _, other, err := readEnv(d.disk())
	if err != nil {
		return err
	}
	active := int64(envOffset1 + envOffset2 - other)
	var at []int64
	switch which {
	case "active":
		at = []int64{active}
	case "other":
		at = []int64{other}
	case "both":
		at = []int64{active, other}
	default:
		return fmt.Errorf("spoil %q: want active, other or both", which)
	}
	f, err := os.OpenFile(d.disk(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for _, offset := range at {
		b := make([]byte, 1)
		_, readErr := f.ReadAt(b, offset+envHeader)
		b[0]++
		_, writeErr := f.WriteAt(b, offset+envHeader)
		err = errors.Join(err, readErr, writeErr)
	}
	return errors.Join(err, f.Close())
}

// FillEnv adds a variable that leaves this many bytes of the environment free.
func (d *Device) FillEnv(free int) error {
	vars, err := d.Env()
	if err != nil {
		return err
	}
	const filler = "filler"
	room := envSize - envHeader - 1 - free - len(filler+"=\x00") // 1: the end of the list
	for name, value := range vars {
		if name != filler {
			room -= len(name + "=" + value + "\x00")
		}
	}
	return d.SetEnv(map[string]string{filler: strings.Repeat("x", room)})
}
