package bootenv

import (
	"bytes"
	"fmt"
	"strings"
)

const (
	// grubBlockSize is the size of every block that grub-editenv makes, in
	// bytes. GRUB takes other sizes, too; the tools do not write them.
	grubBlockSize = 1024
	// grubSignature begins a block (source: GRUB, include/grub/lib/envblk.h).
	grubSignature = "# GRUB Environment Block\n"
)

// blockError is an [ErrCorrupt] at an offset of a GRUB environment block.
type blockError struct {
	offset int
	reason string
}

func (e *blockError) Error() string        { return fmt.Sprintf("offset 0x%x: %s", e.offset, e.reason) }
func (e *blockError) Is(target error) bool { return target == ErrCorrupt }

// grubBlock is the content of a GRUB environment block: its lines in their
// order. Lines that are not touched survive byte for byte, comments too
// (source: GRUB, lib/envblk.c).
//
// A line is a comment that begins with '#', or "name=value". A backslash takes
// the next byte literally, also a line break; in a name it has no meaning. The
// rest of the block is filled with '#'.
type grubBlock []grubLine

// grubLine is one line. raw includes the line break; name is "" in a comment.
type grubLine struct {
	raw, name, value string
}

// decodeGRUBBlock splits a block. GRUB reads a malformed block up to the bad
// line and says nothing; so the lines before it are returned with the error,
// which is a *blockError. A block of another size is malformed in that sense:
// GRUB reads it, but an update in place would change its size.
func decodeGRUBBlock(b []byte) (grubBlock, error) {
	if !bytes.HasPrefix(b, []byte(grubSignature)) {
		return nil, &blockError{0, "no signature of a GRUB environment block"}
	}
	// The filler is what GRUB appends to. It must follow a line break, or what
	// is appended belongs to the line before it.
	filler := len(bytes.TrimRight(b, "#"))
	var lines grubBlock
	for at := len(grubSignature); at < filler; {
		end := lineEnd(b[:filler], at)
		if end < 0 {
			return lines, &blockError{at, "line does not end"}
		}
		line, err := decodeGRUBLine(string(b[at:end]))
		if err != "" {
			return lines, &blockError{at, err}
		}
		lines = append(lines, line)
		at = end
	}
	if len(b) != grubBlockSize {
		return lines, &blockError{min(len(b), grubBlockSize), fmt.Sprintf("size is %d bytes, not %d", len(b), grubBlockSize)}
	}
	return lines, nil
}

// lineEnd returns where the line that begins at the offset ends, after its line
// break, or -1.
func lineEnd(b []byte, at int) int {
	for at < len(b) {
		switch b[at] {
		case '\\':
			at += 2
		case '\n':
			return at + 1
		default:
			at++
		}
	}
	return -1
}

// decodeGRUBLine returns the line, or what is wrong with it. GRUB looks for the
// '=' beyond the end of the line and so loses the next variable in a name that
// nobody asks for.
func decodeGRUBLine(raw string) (_ grubLine, wrong string) {
	if raw[0] == '#' {
		return grubLine{raw: raw}, ""
	}
	name, rest, found := strings.Cut(raw[:len(raw)-1], "=")
	switch {
	case strings.Contains(raw, "\x00"):
		return grubLine{}, "NUL in a line"
	case !found || strings.Contains(name, "\n"):
		return grubLine{}, "line without '='"
	case name == "":
		return grubLine{}, "variable without a name"
	}
	value := make([]byte, 0, len(rest))
	for i := 0; i < len(rest); i++ {
		if rest[i] == '\\' {
			i++ // never the last byte: then the line would not end here
		}
		value = append(value, rest[i])
	}
	return grubLine{raw, name, string(value)}, ""
}

// newGRUBLine encodes a variable.
func newGRUBLine(v Var) grubLine {
	escape := strings.NewReplacer(`\`, `\\`, "\n", "\\\n")
	return grubLine{v.Name + "=" + escape.Replace(v.Value) + "\n", v.Name, v.Value}
}

// size returns how many bytes signature and lines take.
func (g grubBlock) size() int {
	n := len(grubSignature)
	for _, l := range g {
		n += len(l.raw)
	}
	return n
}

// encode returns the block, or [ErrNoSpace].
func (g grubBlock) encode() ([]byte, error) {
	if n := g.size(); n > grubBlockSize {
		return nil, fmt.Errorf("%w: %d bytes needed, %d available", ErrNoSpace, n, grubBlockSize)
	}
	b := make([]byte, 0, grubBlockSize)
	b = append(b, grubSignature...)
	for _, l := range g {
		b = append(b, l.raw...)
	}
	return append(b, bytes.Repeat([]byte{'#'}, grubBlockSize-len(b))...), nil
}

// lookup returns a variable's value, "" if it is not set, and how often it is
// there. As in GRUB the last one wins.
func (g grubBlock) lookup(name string) (value string, count int) {
	for _, l := range g {
		if l.name == name {
			value = l.value
			count++
		}
	}
	return value, count
}

// all returns every variable that has a value.
func (g grubBlock) all() map[string]string {
	m := make(map[string]string, len(g))
	for _, l := range g {
		if m[l.name] = l.value; l.name == "" || l.value == "" {
			delete(m, l.name)
		}
	}
	return m
}

// duplicates returns the names that are there more than once.
func (g grubBlock) duplicates() []string {
	seen := make(map[string]int, len(g))
	var names []string
	for _, l := range g {
		if l.name == "" {
			continue
		}
		if seen[l.name]++; seen[l.name] == 2 {
			names = append(names, l.name)
		}
	}
	return names
}

// with returns the block with the pairs applied in order, and whether that
// differs. The receiver is left as it is.
//
// A variable of the pairs that is there twice is made one, even if its value
// fits: GRUB reads the last of them but changes the first, so that its count
// of boots would never move.
func (g grubBlock) with(pairs []Var) (_ grubBlock, changed bool, _ error) {
	out := append(grubBlock(nil), g...)
	for _, p := range pairs {
		if err := p.check(); err != nil {
			return nil, false, err
		}
		if value, count := out.lookup(p.Name); value == p.Value && count <= 1 {
			continue
		}
		out = out.set(p)
		changed = true
	}
	return out, changed, nil
}

// set replaces the first line of that name and drops the others, or appends.
func (g grubBlock) set(p Var) grubBlock {
	placed := p.Value == ""
	out := g[:0]
	for _, l := range g {
		switch {
		case l.name != p.Name:
			out = append(out, l)
		case !placed:
			placed = true
			out = append(out, newGRUBLine(p))
		}
	}
	if !placed {
		out = append(out, newGRUBLine(p))
	}
	return out
}

// sameLayout tells whether each line of one block begins where a line of the
// other does. Then any mixture of their sectors is a block in which each line
// is that of one or of the other.
func (g grubBlock) sameLayout(other grubBlock) bool {
	if len(g) != len(other) {
		return false
	}
	for i := range g {
		if g[i].name != other[i].name || len(g[i].raw) != len(other[i].raw) {
			return false
		}
	}
	return true
}
