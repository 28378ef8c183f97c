package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/rs/zerolog"
)

// NewLogger returns a logger that writes lines for people to w, prefixed with
// the program's name.
func NewLogger(w io.Writer, program string, level zerolog.Level) zerolog.Logger {
	return zerolog.New(textWriter{w: w, program: program}).Level(level)
}

// NewJournalLogger returns a logger that sends structured entries to the
// journal, and false if there is none.
func NewJournalLogger(level zerolog.Level) (zerolog.Logger, bool) {
	if !journal.Enabled() {
		return zerolog.Logger{}, false
	}
	return zerolog.New(journalWriter{}).Level(level), true
}

// ParseLevel understands the level names of Mender's clients. It returns false
// for any other word.
func ParseLevel(s string) (zerolog.Level, bool) {
	switch strings.ToLower(s) {
	case "panic", "fatal", "error":
		return zerolog.ErrorLevel, true
	case "warning", "warn":
		return zerolog.WarnLevel, true
	case "info":
		return zerolog.InfoLevel, true
	case "debug", "trace":
		return zerolog.DebugLevel, true
	}
	return zerolog.NoLevel, false
}

// textWriter turns zerolog's JSON into "program: level: message key=value".
// The level of information is not spelled out.
type textWriter struct {
	w       io.Writer
	program string
}

func (t textWriter) Write(p []byte) (int, error) {
	return t.WriteLevel(zerolog.NoLevel, p)
}

// WriteLevel writes one event.
func (t textWriter) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	message, fields, err := decode(p)
	if err != nil {
		return 0, err
	}
	var b strings.Builder
	b.WriteString(t.program + ": ")
	switch level {
	case zerolog.ErrorLevel:
		b.WriteString("error: ")
	case zerolog.WarnLevel:
		b.WriteString("warning: ")
	case zerolog.DebugLevel:
		b.WriteString("debug: ")
	default:
	}
	b.WriteString(Printable(message))
	delete(fields, fieldMessageID) // a number for programs
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		v := fields[k]
		if v == "" || strings.ContainsFunc(v, needsQuotes) {
			v = fmt.Sprintf("%q", v)
		}
		fmt.Fprintf(&b, " %s=%s", k, v)
	}
	b.WriteByte('\n')
	if _, err := io.WriteString(t.w, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Printable makes text safe for a terminal: whatever a stick put into it, no
// escape sequence and no second line comes out.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func needsQuotes(r rune) bool {
	return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r)
}

// journalWriter sends events to journald with their fields.
type journalWriter struct{}

func (j journalWriter) Write(p []byte) (int, error) { return j.WriteLevel(zerolog.NoLevel, p) }

// WriteLevel sends one event.
func (journalWriter) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	message, fields, err := decode(p)
	if err != nil {
		return 0, err
	}
	priority := journal.PriInfo
	switch level {
	case zerolog.ErrorLevel:
		priority = journal.PriErr
	case zerolog.WarnLevel:
		priority = journal.PriWarning
	case zerolog.DebugLevel:
		priority = journal.PriDebug
	default:
	}
	vars := make(map[string]string, len(fields))
	for k, v := range fields {
		vars[strings.ToUpper(k)] = Printable(v)
		if k == zerolog.ErrorFieldName { // the reason belongs into the line that people see
			message += ": " + v
		}
	}
	if err := journal.Send(Printable(message), priority, vars); err != nil {
		return 0, err
	}
	return len(p), nil
}

// decode takes one event of zerolog's apart.
func decode(p []byte) (message string, fields map[string]string, err error) {
	dec := json.NewDecoder(bytes.NewReader(p))
	dec.UseNumber() // byte counts stay as they were written
	var event map[string]any
	if err := dec.Decode(&event); err != nil {
		return "", nil, fmt.Errorf("log event: %w", err)
	}
	fields = make(map[string]string, len(event))
	for k, v := range event {
		switch k {
		case zerolog.LevelFieldName:
		case zerolog.MessageFieldName:
			message = fmt.Sprint(v)
		default:
			fields[k] = fmt.Sprint(v)
		}
	}
	return message, fields, nil
}
