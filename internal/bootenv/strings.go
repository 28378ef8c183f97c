package bootenv

import (
	"fmt"
	"slices"
	"strings"
)

// flagsVar lists attributes of other variables (source: U-Boot,
// doc/README.env_flags or "Environment Variables", .flags).
const flagsVar = ".flags"

// stringList is the content of an environment: strings as they are stored,
// "name=value" each, in their order. Strings that are not touched survive byte
// for byte; U-Boot keeps more in them than a map could hold, such as escapes.
type stringList []string

// decodeStrings splits the data area of a copy. Every input is a list: what
// follows the first empty string has no meaning, and an area without one ends
// with its last byte.
func decodeStrings(data []byte) stringList {
	var l stringList
	for len(data) > 0 {
		s := data
		if end := slices.Index(data, 0); end >= 0 {
			s, data = data[:end], data[end+1:]
		} else {
			data = nil
		}
		if len(s) == 0 {
			break
		}
		l = append(l, string(s))
	}
	return l
}

// size returns how many bytes the list takes, with the empty string at its end.
func (l stringList) size() int {
	n := 1
	for _, s := range l {
		n += len(s) + 1
	}
	return n
}

// encode fills data with the list and pads with zeros, as U-Boot does. The
// caller has compared size with the room.
func (l stringList) encode(data []byte) {
	clear(data)
	for _, s := range l {
		data = data[copy(data, s)+1:]
	}
}

// lookup returns a variable's value, "" if it is not set. As in U-Boot the last
// of several wins, and a string without a value removes the variable.
func (l stringList) lookup(name string) string {
	value := ""
	for _, s := range l {
		if n, v, _ := strings.Cut(s, "="); n == name {
			value = v
		}
	}
	return value
}

// all returns every variable that has a name and a value.
func (l stringList) all() map[string]string {
	m := make(map[string]string, len(l))
	for _, s := range l {
		n, v, _ := strings.Cut(s, "=")
		if m[n] = v; n == "" || v == "" {
			delete(m, n)
		}
	}
	return m
}

// with returns the list with the pairs applied in order, and whether that
// differs. The receiver is left as it is.
func (l stringList) with(pairs []Var) (_ stringList, changed bool, _ error) {
	out := slices.Clone(l)
	for _, p := range pairs {
		if err := p.check(); err != nil {
			return nil, false, err
		}
		if out.lookup(p.Name) == p.Value {
			continue
		}
		if err := l.permits(p); err != nil {
			return nil, false, err
		}
		out = out.set(p)
		changed = true
	}
	return out, changed, nil
}

// set replaces the first string of that name and drops the others, or appends.
func (l stringList) set(p Var) stringList {
	at := -1
	out := l[:0]
	for _, s := range l {
		if n, _, _ := strings.Cut(s, "="); n != p.Name {
			out = append(out, s)
		} else if at < 0 && p.Value != "" {
			at = len(out)
			out = append(out, p.Name+"="+p.Value)
		}
	}
	if at < 0 && p.Value != "" {
		out = append(out, p.Name+"="+p.Value)
	}
	return out
}

// check refuses what U-Boot would not read back as the same variable. A single
// string with an empty name even keeps it from reading the rest (source:
// U-Boot, lib/hashtable.c, himport_r).
func (v Var) check() error {
	if v.Name == "" || strings.ContainsAny(v.Name, "=\x00\r\n") || strings.ContainsAny(v.Name[:1], "# \t") {
		return fmt.Errorf("variable %s: not a valid name", quote(v.Name))
	}
	if strings.ContainsAny(v.Value, "\x00\r\n") {
		return fmt.Errorf("variable %s: value has a line break or a NUL", quote(v.Name))
	}
	return nil
}

// permits applies the .flags of the environment: "name:TA,…" with a type and an
// access letter. A write that U-Boot's own rules forbid would be dropped
// silently by some tools and undone by others, so it is refused.
func (l stringList) permits(v Var) error {
	if v.Name == flagsVar {
		return fmt.Errorf("variable %s: %w", v.Name, ErrReadOnlyVar)
	}
	for item := range strings.SplitSeq(l.lookup(flagsVar), ",") {
		name, attr, _ := strings.Cut(strings.TrimSpace(item), ":")
		if name != v.Name {
			continue
		}
		if err := v.conform(attr); err != nil {
			return fmt.Errorf("variable %s: %s: %w", quote(v.Name), flagsVar, err)
		}
	}
	return nil
}

// permits applies a write list. Nil permits everything.
func (w WriteList) permits(v Var) error {
	if w == nil {
		return nil
	}
	attr, ok := w[v.Name]
	if !ok {
		return fmt.Errorf("variable %s: not in the write list: %w", quote(v.Name), ErrReadOnlyVar)
	}
	if err := v.conform(attr); err != nil {
		return fmt.Errorf("variable %s: write list: %w", quote(v.Name), err)
	}
	return nil
}

// conform tells why the attributes, a type and an access letter, forbid to set
// the variable.
func (v Var) conform(attr string) error {
	if len(attr) > 1 && (attr[1] == 'r' || attr[1] == 'o') {
		return fmt.Errorf("access %c: %w", attr[1], ErrReadOnlyVar)
	}
	if len(attr) > 0 && v.Value != "" && !hasType(v.Value, attr[0]) {
		return fmt.Errorf("value %s is not of type %c: %w", quote(v.Value), attr[0], ErrReadOnlyVar)
	}
	return nil
}

// hasType tells whether U-Boot accepts the value for a type letter (source:
// U-Boot, env/flags.c). Addresses are no values of ours and are not accepted.
func hasType(value string, typ byte) bool {
	switch typ {
	case 'd':
		return strings.Trim(value, "0123456789") == ""
	case 'x':
		value = strings.TrimPrefix(strings.ToLower(value), "0x")
		return strings.Trim(value, "0123456789abcdef") == ""
	case 'b':
		return len(value) == 1 && strings.Contains("1yYtT0nNfF", value)
	case 'i', 'm':
		return false
	default:
		return true
	}
}
