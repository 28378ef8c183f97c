package bootenv

import "fmt"

// eraseUnit is the smallest piece that flash storage rewrites, in bytes: a
// write to one sector may damage its neighbors in the same piece when the power
// fails.
const eraseUnit = 4096

// LayoutWarnings tells what in the layout of a U-Boot environment makes a power
// cut more dangerous than it has to be, one phrase each. Paths of the same
// device must be equal: symbolic links are the caller's to resolve. It is pure.
func LayoutWarnings(copies []Copy) []string {
	var w []string
	if len(copies) == 1 {
		w = append(w, "there is only one copy")
	}
	for _, c := range copies {
		if c.Size%eraseUnit != 0 {
			w = append(w, fmt.Sprintf("%s: the size 0x%x is no multiple of %d bytes", c, c.Size, eraseUnit))
		}
	}
	if len(copies) != maxCopies {
		return w
	}
	a, b := copies[0], copies[1]
	switch {
	case a.Path != b.Path:
	case a.Offset < 0 != (b.Offset < 0): // where they meet depends on the size of the device
	case overlap(a.Offset, b.Offset, a.Size):
		w = append(w, fmt.Sprintf("%s and %s are the same bytes", a, b))
	default:
		if gap := max(a.Offset, b.Offset) - min(a.Offset, b.Offset) - int64(a.Size); gap < eraseUnit {
			w = append(w, fmt.Sprintf("%s and %s are %d bytes apart, less than %d", a, b, gap, eraseUnit))
		}
	}
	return w
}

// Target returns the index of the copy that the next Update overwrites, -1 if
// there is none.
func (h Health) Target() int {
	switch {
	case h.Active < 0:
		return -1
	case len(h.Copies) == maxCopies:
		return 1 - h.Active
	default:
		return h.Active
	}
}

// ArmVars returns the variables that Arm would set, for people.
func (m *Mender) ArmVars(s Slot) []Var { return m.armed(s) }
