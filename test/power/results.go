package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/usb-updater/usb-updater/test/medium"
)

// result is one line of the results.
type result struct {
	Kind    string  `json:"kind"` // "trace", "round", "pull", "fault"
	Seed    uint64  `json:"seed"`
	Number  int     `json:"number"` // of the round or pull; of the round before a trace
	Commit  string  `json:"commit,omitempty"`
	Bug     string  `json:"bug,omitempty"`
	From    string  `json:"from,omitempty"`
	To      string  `json:"to,omitempty"`
	Seconds float64 `json:"seconds"`

	// Of a trace.
	Entries int    `json:"entries,omitempty"`
	Trace   *tally `json:"trace,omitempty"`

	// Of a round, a pull or a fault.
	Fault      string      `json:"fault,omitempty"`
	Stage      stage       `json:"stage,omitempty"`
	Index      int         `json:"index,omitempty"`
	Loss       medium.Loss `json:"loss,omitempty"`
	Boots      int         `json:"boots,omitempty"`
	Runs       string      `json:"runs,omitempty"`
	Outcome    string      `json:"outcome,omitempty"` // "old", "new"
	Next       bool        `json:"next,omitempty"`    // the next update followed, and was committed
	Violations []string    `json:"violations,omitempty"`
}

// results is a file with one result a line.
type results struct {
	f   *os.File
	out io.Writer
}

func openResults(path string, out io.Writer) (*results, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	return &results{f, out}, err
}

func (r *results) add(v result) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = r.f.Write(append(b, '\n'))
	return errors.Join(err, r.tell(v))
}

func (r *results) tell(v result) error {
	verdict := "ok"
	if n := len(v.Violations); n > 0 {
		verdict = fmt.Sprintf("VIOLATION %q", v.Violations)
	}
	var err error
	switch v.Kind {
	case "trace":
		if len(v.Trace.Violations) > 0 {
			verdict = fmt.Sprintf("VIOLATIONS %v", v.Trace.Violations)
		}
		_, err = fmt.Fprintf(r.out, "trace %4d  %s to %s: %d requests, %d states judged, %d different, %.0f s: %s\n",
			v.Number, v.From, v.To, v.Entries, v.Trace.States, v.Trace.Unique, v.Seconds, verdict)
	default:
		what := fmt.Sprintf("cut in %-8s at %d", v.Stage, v.Index)
		switch v.Kind {
		case "pull":
			what = fmt.Sprintf("pulled out in %-8s", v.Stage)
		case "fault":
			what = v.Fault
		}
		if v.Loss != "" {
			what += fmt.Sprintf(" (%s)", v.Loss)
		}
		next := ""
		if v.Next {
			next = ", next update committed"
		}
		_, err = fmt.Fprintf(r.out, "%s %4d  %s: %s after %d boots%s, %.0f s: %s\n",
			v.Kind, v.Number, what, v.Outcome, v.Boots, next, v.Seconds, verdict)
	}
	return err
}

// Close closes the file.
func (r *results) Close() error { return r.f.Close() }
