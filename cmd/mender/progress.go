package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/install"
)

// progressStyle is how an install shows how far it is.
type progressStyle string

const (
	progressAuto  progressStyle = "auto"  // a bar on a terminal, else plain
	progressBar   progressStyle = "bar"   // one line that redraws itself
	progressPlain progressStyle = "plain" // a line for each tenth
	progressJSON  progressStyle = "json"  // an object on each line
	progressNone  progressStyle = "none"
)

func parseProgress(s string) (progressStyle, error) {
	switch p := progressStyle(s); p {
	case progressAuto, progressBar, progressPlain, progressJSON, progressNone:
		return p, nil
	}
	return "", usageError(fmt.Sprintf("progress %.64q: want auto, bar, plain, json or none", s))
}

// progress shows how much of an update is done. The engine sends a few events
// a second at most.
type progress struct {
	w       io.Writer
	style   progressStyle
	percent int // that was shown last as JSON
	tenth   int // that was shown last
	width   int // of the bar's line that the cursor is behind; 0: none
}

func newProgress(w io.Writer, style progressStyle) *progress {
	if style == progressAuto {
		style = progressPlain
		if isTerminal(w) {
			style = progressBar
		}
	}
	return &progress{w: w, style: style, tenth: -1}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// barWidth is the length of a full bar in characters.
const barWidth = 30

// event shows a step of the engine. What cannot be shown changes no outcome.
func (p *progress) event(ev install.Event) {
	switch {
	case p.style == progressNone:
	case p.style == progressJSON:
		p.object(ev)
	case ev.Step == install.StepVerify:
		p.line("reading slot %s back", ev.Slot)
	case ev.Step == install.StepInstall:
		p.line("update module %s installs", ev.Module)
	case ev.Step != install.StepWrite || ev.Total == 0:
	case p.style == progressBar:
		p.bar(ev)
	default:
		if tenth := ev.Percent() / 10; tenth != p.tenth {
			p.tenth = tenth
			p.line("%d%% %d KiB", tenth*10, ev.Bytes>>10)
		}
	}
	if m := ev.Medium; m != nil && p.style != progressNone && p.style != progressJSON {
		p.line("slot %s: %d KiB written, %d KiB were right, %d KiB zeroed", ev.Slot, m.Written>>10, m.Skipped>>10, m.Zeroed>>10)
	}
}

func (p *progress) bar(ev install.Event) {
	full := ev.Percent() * barWidth / 100
	line := fmt.Sprintf("%s%s %3d %%  %d of %d MiB", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), ev.Percent(), ev.Bytes>>20, ev.Total>>20)
	if rate := ev.Rate(); rate > 0 {
		line += fmt.Sprintf("  %.1f MB/s", float64(rate)/1e6)
	}
	if left := ev.Left().Round(time.Second); left > 0 {
		line += fmt.Sprintf("  %v left", left)
	}
	// The line before may have been longer.
	_, _ = fmt.Fprintf(p.w, "\r%-*s", p.width, line)
	p.width = max(p.width, len(line))
}

// object writes an event as one line of JSON. Times are in seconds, sizes in
// bytes.
func (p *progress) object(ev install.Event) {
	type medium struct {
		Written  int64 `json:"written"`
		Skipped  int64 `json:"skipped"`
		Zeroed   int64 `json:"zeroed"`
		Compared int64 `json:"compared"`
		Flushes  int64 `json:"flushes"`
	}
	switch ev.Step {
	case install.StepVerify, install.StepArm, install.StepInstall: // they are behind the artifact
		p.percent = 100
	default:
		p.percent = max(p.percent, ev.Percent())
	}
	o := struct {
		Step      string  `json:"step"`
		Artifact  string  `json:"artifact,omitempty"`
		Slot      string  `json:"slot,omitempty"`
		Module    string  `json:"module,omitempty"`
		Percent   int     `json:"percent"`
		Bytes     int64   `json:"bytes"`
		Total     int64   `json:"total"`
		Read      int64   `json:"read"`
		ReadTotal int64   `json:"read_total"`
		Rate      int64   `json:"rate"`
		Elapsed   float64 `json:"elapsed"`
		Left      float64 `json:"left"`
		Medium    *medium `json:"medium,omitempty"`
	}{
		Step: string(ev.Step), Artifact: ev.Artifact, Module: ev.Module, Percent: p.percent,
		Bytes: ev.Bytes, Total: ev.Total, Read: ev.Read, ReadTotal: ev.ReadTotal, Rate: ev.Rate(),
		Elapsed: ev.Elapsed.Seconds(), Left: ev.Left().Seconds(),
	}
	if ev.Module == "" {
		o.Slot = ev.Slot.String()
	}
	if m := ev.Medium; m != nil {
		o.Medium = &medium{m.Written, m.Skipped, m.Zeroed, m.Compared, m.Flushes}
	}
	_ = json.NewEncoder(p.w).Encode(o) // a reader that went away changes no outcome
}

func (p *progress) line(format string, args ...any) {
	p.end()
	_, _ = fmt.Fprintf(p.w, "mender: "+format+"\n", args...)
}

// end leaves the bar's line.
func (p *progress) end() {
	if p.width > 0 {
		_, _ = io.WriteString(p.w, "\n")
		p.width = 0
	}
}
