package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/install"
)

// progress shows how much of the image is written: a bar that redraws itself
// on a terminal, a line for each tenth elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	shown    int64 // percent
	drawn    bool  // the cursor is behind a bar
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, terminal: isTerminal(w), shown: -1}
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
const barWidth = 40

// event shows a step of the engine. What cannot be shown changes no outcome.
func (p *progress) event(ev install.Event) {
	if ev.Step != install.StepWrite || ev.Total == 0 {
		switch ev.Step {
		case install.StepVerify:
			p.line("comparing slot %s with the checksum", ev.Slot)
		case install.StepInstall:
			p.line("update module %s installs", ev.Module)
		default:
		}
		return
	}
	percent := ev.Bytes * 100 / ev.Total
	if percent == p.shown {
		return
	}
	if p.terminal {
		full := int(percent) * barWidth / 100
		_, _ = fmt.Fprintf(p.w, "\r%s%s %3d %%  %d of %d KiB", strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
			percent, ev.Bytes>>10, ev.Total>>10)
		p.drawn = true
	} else if percent/10 != p.shown/10 || p.shown < 0 {
		p.line("%d%% %d KiB", percent/10*10, ev.Bytes>>10)
	}
	p.shown = percent
}

func (p *progress) line(format string, args ...any) {
	p.end()
	_, _ = fmt.Fprintf(p.w, "mender: "+format+"\n", args...)
}

// end leaves the bar's line.
func (p *progress) end() {
	if p.drawn {
		_, _ = io.WriteString(p.w, "\n")
		p.drawn = false
	}
}
