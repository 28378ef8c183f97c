package artifact

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// object is a JSON object. Its values are string, json.Number, bool, nil,
// []any or object.
type object = map[string]any

// decodeObject decodes a document that must be one JSON object. encoding/json
// alone would take the last of two equal keys, repair broken UTF-8 and broken
// surrogate pairs and read a prefix, so two readers could see two documents.
// what names the document in errors.
func decodeObject(what string, b []byte) (object, error) {
	switch {
	case !utf8.Valid(b):
		return nil, malformed("%s is not UTF-8", what)
	case bytes.HasPrefix(b, []byte("\ufeff")):
		return nil, malformed("%s begins with a byte order mark", what)
	case !json.Valid(b):
		return nil, malformed("%s is not a JSON document", what)
	case hasLoneSurrogate(b):
		return nil, malformed("%s has half a surrogate pair", what)
	}
	d := jsonDecoder{what: what, dec: json.NewDecoder(bytes.NewReader(b))}
	d.dec.UseNumber()
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	o, ok := v.(object)
	if !ok {
		return nil, malformed("%s is not a JSON object", what)
	}
	return o, nil
}

// jsonDecoder builds the tree of a document that is known to be well-formed.
type jsonDecoder struct {
	what   string
	dec    *json.Decoder
	values int
}

func (d *jsonDecoder) value(depth int) (any, error) {
	if d.values++; d.values > maxJSONValues {
		return nil, fault(Limit, "%s has more than %d values", d.what, maxJSONValues)
	}
	token, err := d.dec.Token()
	if err != nil {
		return nil, malformed("%s: %w", d.what, err)
	}
	switch t := token.(type) {
	case json.Delim:
		if depth++; depth > maxJSONDepth {
			return nil, fault(Limit, "%s is nested deeper than %d", d.what, maxJSONDepth)
		}
		if t == '{' {
			return d.object(depth)
		}
		return d.list(depth)
	case json.Number:
		if len(t) > maxNumberSize {
			return nil, fault(Limit, "%s has a number of %d digits", d.what, len(t))
		}
	}
	return token, nil
}

func (d *jsonDecoder) object(depth int) (object, error) {
	o := object{}
	for d.dec.More() {
		token, err := d.dec.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			return nil, malformed("%s: %w", d.what, err)
		}
		if _, ok := o[key]; ok {
			return nil, malformed("%s has the key %s twice", d.what, quote(key))
		}
		if o[key], err = d.value(depth); err != nil {
			return nil, err
		}
	}
	return o, d.closing()
}

func (d *jsonDecoder) list(depth int) ([]any, error) {
	l := []any{}
	for d.dec.More() {
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	return l, d.closing()
}

func (d *jsonDecoder) closing() error {
	if _, err := d.dec.Token(); err != nil {
		return malformed("%s: %w", d.what, err)
	}
	return nil
}

// hasLoneSurrogate looks for \u escapes that do not pair up. b is valid JSON,
// so a backslash begins an escape inside a string.
func hasLoneSurrogate(b []byte) bool {
	high := false // the escape just before is the first half of a pair
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			if high {
				return true
			}
			continue
		}
		i++
		if b[i] != 'u' {
			if high {
				return true
			}
			continue
		}
		r, _ := strconv.ParseUint(string(b[i+1:i+5]), 16, 32)
		i += 4
		isHigh, isLow := r&0xfc00 == 0xd800, r&0xfc00 == 0xdc00
		if isLow != high {
			return true
		}
		high = isHigh
	}
	return false
}

// Errors of the checks below. The caller names the field.
var (
	errNotString    = errors.New("not a string")
	errNotList      = errors.New("not a list with a reasonable number of entries")
	errNotObject    = errors.New("not an object with a reasonable number of entries")
	errNotPrintable = errors.New("empty, too long or not printable")
)

// text checks that v is a printable string of at most limit bytes.
func text(v any, limit int) (string, error) {
	s, err := textOrEmpty(v, limit)
	if err == nil && s == "" {
		err = errNotPrintable
	}
	return s, err
}

// textOrEmpty is text for a value that may be "".
func textOrEmpty(v any, limit int) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", errNotString
	}
	if len(s) > limit {
		return "", errNotPrintable
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return "", errNotPrintable
		}
	}
	return s, nil
}

// textList checks that v is a list of 1 to limit printable strings.
func textList(v any, limit int) ([]string, error) {
	l, ok := v.([]any)
	if !ok || len(l) == 0 || len(l) > limit {
		return nil, errNotList
	}
	out := make([]string, len(l))
	for i, v := range l {
		var err error
		if out[i], err = text(v, maxTextSize); err != nil {
			return nil, err
		}
	}
	return out, nil
}
