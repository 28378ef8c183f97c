package bootenv

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

const (
	// maxConfigSize is far above any real configuration, which has two lines.
	maxConfigSize = 64 << 10
	// MaxEnvSize is the largest copy that is read, in bytes. Boards use 8 KiB
	// to 512 KiB.
	MaxEnvSize = 1 << 20
	// minEnvSize has room for the header and the end of the list.
	minEnvSize = 16
	maxCopies  = 2
)

// Copy is one place that holds an environment.
type Copy struct {
	Path   string // file or block device
	Offset int64  // in bytes; negative counts from the end of the medium
	Size   int    // in bytes, header included
}

// String returns path and offset.
func (c Copy) String() string {
	if c.Offset < 0 {
		return fmt.Sprintf("%s offset -0x%x", c.Path, -c.Offset)
	}
	return fmt.Sprintf("%s offset 0x%x", c.Path, c.Offset)
}

// FwEnvConfig is what an fw_env.config says.
type FwEnvConfig struct {
	// Copies are one or two, of the same size.
	Copies []Copy
	// Locks are lock files that programs take for this environment, beside the
	// customary ones or in place of them.
	Locks []string
	// WriteList limits what may be set; nil does not.
	WriteList WriteList
}

// WriteList maps the names of variables that may be set to their flags: a type
// letter and an access letter, as in .flags of the environment. Either may be
// missing.
type WriteList map[string]string

// ParseFwEnvConfig reads an fw_env.config. It knows two forms.
//
// The line form is "path offset size" and more fields, which only matter for
// raw flash and are ignored. It means here what it means to the tools that the
// file is for, surprises included: the offset may be decimal, 0x… or octal
// with a leading 0, while the size is hexadecimal with or without 0x; a
// comment has its # in the first column; a line that does not parse is
// skipped; entries after the second are ignored (sources: U-Boot,
// tools/env/fw_env.c, get_config; libubootenv, uboot_env.c).
//
// The YAML form has namespaces, of which the one of the given name counts, or
// the first one if no name is given; parseYAML shows it. The line form has
// none, and the name is ignored.
//
// Stricter than the tools: two entries for the same bytes are an error, because
// they only look like redundancy. YAML beyond what the form needs is
// [ErrUnsupported].
func ParseFwEnvConfig(b []byte, namespace string) (FwEnvConfig, error) {
	if len(b) > maxConfigSize {
		return FwEnvConfig{}, fmt.Errorf("parse fw_env.config: larger than %d bytes", maxConfigSize)
	}
	text := string(b)
	var cfg FwEnvConfig
	var err error
	if looksLikeYAML(text) {
		cfg, err = parseYAML(text, namespace)
	} else if cfg.Copies = configLines(text); len(cfg.Copies) > 0 {
		err = validate(cfg.Copies)
	} else {
		err = errors.New("no line of the form: path offset size")
	}
	if err != nil {
		return FwEnvConfig{}, fmt.Errorf("parse fw_env.config: %w", err)
	}
	return cfg, nil
}

// configLines returns the copies that the line form names.
func configLines(text string) (copies []Copy) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if c, ok := parseConfigLine(line); ok {
			if copies = append(copies, c); len(copies) == maxCopies {
				break
			}
		}
	}
	return copies
}

// looksLikeYAML tells whether the first line that counts begins a document or
// is a key, and no line of the line form, whose path may end with a colon.
func looksLikeYAML(text string) bool {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if _, ok := parseConfigLine(line); ok {
			return false
		}
		key, _, ok := cutKey(line)
		return ok && !strings.ContainsAny(key, blanks) || line == "---"
	}
	return false
}

// validate checks what can be known without a look at the medium.
func validate(copies []Copy) error {
	if len(copies) < 1 || len(copies) > maxCopies {
		return fmt.Errorf("%d copies of the environment, want 1 or %d", len(copies), maxCopies)
	}
	for _, c := range copies {
		if c.Path == "" {
			return errors.New("a copy has no path")
		}
		if c.Size < minEnvSize || c.Size > MaxEnvSize {
			return fmt.Errorf("%s: size 0x%x is not between 0x%x and 0x%x", c, c.Size, minEnvSize, MaxEnvSize)
		}
		if c.Offset > math.MaxInt64-MaxEnvSize || c.Offset == math.MinInt64 {
			return fmt.Errorf("%s: offset is out of range", c.Path)
		}
	}
	if len(copies) == 1 {
		return nil
	}
	a, b := copies[0], copies[1]
	if a.Size != b.Size {
		return fmt.Errorf("the copies differ in size: 0x%x and 0x%x", a.Size, b.Size)
	}
	if a.Path == b.Path && a.Offset < 0 == (b.Offset < 0) && overlap(a.Offset, b.Offset, a.Size) {
		return fmt.Errorf("%s and %s overlap: that is no second copy", a, b)
	}
	return nil
}

func overlap(a, b int64, size int) bool {
	return max(a, b)-min(a, b) < int64(size)
}

// parseConfigLine follows sscanf("%ms %lli %lx"): blanks between the fields
// are optional where a number ends by itself.
func parseConfigLine(line string) (Copy, bool) {
	s := scanner{rest: line}
	path := s.word()
	offset, ok := s.number(0)
	if path == "" || !ok || !fits(offset, math.MaxInt64) {
		return Copy{}, false
	}
	size, ok := s.number(16)
	if !ok {
		return Copy{}, false
	}
	c := Copy{Path: path, Offset: int64(offset.abs), Size: MaxEnvSize + 1}
	if offset.negative {
		c.Offset = -c.Offset
	}
	if fits(size, MaxEnvSize) && !size.negative {
		c.Size = int(size.abs)
	}
	return c, true
}

type number struct {
	negative bool
	abs      uint64
	overflow bool
}

func fits(n number, limit uint64) bool { return !n.overflow && n.abs <= limit }

// scanner reads fields the way scanf does: a number ends at the first byte
// that cannot belong to it.
type scanner struct {
	rest string
}

const blanks = " \t\n\v\f\r"

func (s *scanner) word() string {
	s.rest = strings.TrimLeft(s.rest, blanks)
	end := strings.IndexAny(s.rest, blanks)
	if end < 0 {
		end = len(s.rest)
	}
	w := s.rest[:end]
	s.rest = s.rest[end:]
	return w
}

// number reads an integer in the given base; base 0 looks at the prefix as C
// does. It returns false if there is no digit.
func (s *scanner) number(base uint64) (number, bool) {
	var n number
	r := strings.TrimLeft(s.rest, blanks)
	if r != "" && (r[0] == '-' || r[0] == '+') {
		n.negative = r[0] == '-'
		r = r[1:]
	}
	prefixed := len(r) > 1 && r[0] == '0' && (r[1] == 'x' || r[1] == 'X')
	switch {
	case prefixed && (base == 0 || base == 16):
		base, r = 16, r[2:]
	case base == 0 && strings.HasPrefix(r, "0"):
		base = 8
	case base == 0:
		base = 10
	}
	digits := 0
	for ; digits < len(r); digits++ {
		d := digit(r[digits])
		if d >= base {
			break
		}
		if n.abs > (math.MaxUint64-d)/base {
			n.overflow = true
			continue
		}
		n.abs = n.abs*base + d
	}
	s.rest = r[digits:]
	return n, digits > 0
}

// digit returns the value of c, or one that is too large for any base.
func digit(c byte) uint64 {
	switch {
	case '0' <= c && c <= '9':
		return uint64(c - '0')
	case 'a' <= c && c <= 'f':
		return uint64(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return uint64(c-'A') + 10
	default:
		return math.MaxUint8
	}
}
