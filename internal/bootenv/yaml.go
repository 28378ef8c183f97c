package bootenv

import (
	"errors"
	"fmt"
	"strings"
)

// maxYAMLDepth is the depth of a device's field in an fw_env.config.
const maxYAMLDepth = 4

// errYAML is for what is YAML, but not of the kind that is read here.
var errYAML = fmt.Errorf("this use of YAML is %w", ErrUnsupported)

// yamlNode is a value: a mapping, a sequence or a scalar.
type yamlNode struct {
	line    int // from 1
	entries []yamlEntry
	items   []yamlNode
	scalar  string
}

type yamlEntry struct {
	key   string
	value yamlNode
}

func (n yamlNode) error(err error) error { return yamlLine{number: n.line}.error(err) }

// yamlLine is a line that is neither blank nor a comment.
type yamlLine struct {
	number, indent int
	text           string // without indentation and blanks at its end
}

func (l yamlLine) error(err error) error { return fmt.Errorf("line %d: %w", l.number, err) }

// isItem tells whether the line begins an item of a sequence.
func (l yamlLine) isItem() bool { return l.text == "-" || strings.HasPrefix(l.text, "- ") }

// yamlLines splits the text. It returns one line at least.
func yamlLines(text string) (lines []yamlLine, err error) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, " \t\r\n")
		l := yamlLine{number: number, text: strings.TrimLeft(line, " ")}
		l.indent = len(line) - len(l.text)
		switch {
		case l.text == "" || l.text[0] == '#':
			continue
		case line == "---" && len(lines) == 0: // begins the document
			continue
		case l.text[0] == '\t', strings.HasPrefix(line, "---"), strings.HasPrefix(line, "..."):
			return nil, l.error(errYAML)
		}
		lines = append(lines, l)
	}
	if len(lines) == 0 {
		return nil, errors.New("empty")
	}
	return lines, nil
}

// yamlParser holds the lines that are still to be read.
type yamlParser struct {
	lines []yamlLine
}

// node reads the mapping or sequence whose lines have this indentation. It
// stops at the first line that does not belong to it.
func (p *yamlParser) node(indent, depth int) (yamlNode, error) {
	n := yamlNode{line: p.lines[0].number}
	if depth > maxYAMLDepth {
		return n, p.lines[0].error(errYAML)
	}
	sequence := p.lines[0].isItem()
	for len(p.lines) > 0 && p.lines[0].indent == indent && p.lines[0].isItem() == sequence {
		var err error
		if sequence {
			err = p.item(&n, depth)
		} else {
			err = p.entry(&n, depth)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// item reads "- value", or "- key: value" and the lines that go with it.
func (p *yamlParser) item(n *yamlNode, depth int) error {
	l := p.lines[0]
	rest := strings.TrimLeft(l.text[1:], " ")
	if rest == "" || rest[0] == '#' {
		return l.error(errYAML)
	}
	inner := yamlLine{l.number, l.indent + len(l.text) - len(rest), rest}
	if _, _, ok := cutKey(rest); ok || inner.isItem() {
		p.lines[0] = inner
		value, err := p.node(inner.indent, depth+1)
		n.items = append(n.items, value)
		return err
	}
	p.lines = p.lines[1:]
	scalar, err := yamlScalar(rest)
	if err != nil {
		return l.error(err)
	}
	n.items = append(n.items, yamlNode{line: l.number, scalar: scalar})
	return nil
}

// entry reads "key: value", or "key:" and what is below it.
func (p *yamlParser) entry(n *yamlNode, depth int) error {
	l := p.lines[0]
	p.lines = p.lines[1:]
	key, rest, ok := cutKey(l.text)
	if !ok || key == "" || strings.ContainsAny(key, " \t'\"&*!|>{}[]%@`?,#") {
		return l.error(fmt.Errorf("%s is not a key: %w", quote(l.text), errYAML))
	}
	value := yamlNode{line: l.number}
	var err error
	switch {
	case rest != "" && rest[0] != '#':
		if value.scalar, err = yamlScalar(rest); err != nil {
			err = l.error(err)
		}
	case len(p.lines) > 0 && (p.lines[0].indent > l.indent || p.lines[0].indent == l.indent && p.lines[0].isItem()):
		// The items of a sequence may be as far left as its key.
		value, err = p.node(p.lines[0].indent, depth+1)
	}
	n.entries = append(n.entries, yamlEntry{key, value})
	return err
}

// cutKey splits at a colon that ends a key: a blank or nothing follows it.
func cutKey(s string) (key, rest string, ok bool) {
	for i := range len(s) {
		if s[i] == ':' && (i+1 == len(s) || s[i+1] == ' ' || s[i+1] == '\t') {
			return strings.TrimRight(s[:i], " \t"), strings.TrimLeft(s[i+1:], " \t"), true
		}
	}
	return s, "", false
}

// yamlScalar returns a value without quotes and comment. A quoted one may not
// have escapes.
func yamlScalar(s string) (string, error) {
	if q := s[0]; q == '\'' || q == '"' {
		value, rest, ok := strings.Cut(s[1:], string(q))
		rest, comment, _ := strings.Cut(rest, "#")
		if !ok || strings.Trim(rest, " \t") != "" || comment != "" && rest == "" || strings.Contains(value, `\`) {
			return "", fmt.Errorf("value %s: %w", quote(s), errYAML)
		}
		return value, nil
	}
	for i := 1; i < len(s); i++ {
		if s[i] == '#' && (s[i-1] == ' ' || s[i-1] == '\t') {
			s = strings.TrimRight(s[:i], " \t")
			break
		}
	}
	if _, _, key := cutKey(s); key || strings.ContainsAny(s[:1], "&*!|>{}[]%@`?,:#") {
		return "", fmt.Errorf("value %s: %w", quote(s), errYAML)
	}
	return s, nil
}
