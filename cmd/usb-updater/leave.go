package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/report"
)

const (
	// reportLimit bounds the time in which a report is written.
	reportLimit = 10 * time.Second
	// reportHistory is how many earlier results a report lists.
	reportHistory = 10
	// maxSerial bounds a serial number, in bytes.
	maxSerial = 64
)

// leaveReport leaves a report on the stick, if the device is configured to. It
// changes no outcome. A stick without an artifact is somebody's own, and what
// the stick says already is not said again.
func (a *agent) leaveReport(ctx context.Context, d *device.Device, code report.Code, err error) {
	t := a.tell
	if !d.Agent.WriteReport || a.dryRun || t.stick == nil || len(t.notes) == 0 || ctx.Err() != nil {
		return
	}
	text := a.reportText(d, code, err)
	if t.repeats(code, text) {
		a.log.Info().Msg("the stick holds a report that says the same")
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, reportLimit, errors.New("the stick took too long"))
	defer cancel()
	path, err := t.stick.WriteReport(ctx, reportName(d), text)
	if err != nil {
		a.log.Warn().Err(err).Msg("no report on the stick")
		return
	}
	a.log.Info().Str("file", path).Msg("report left on the stick")
}

// reportName is the name of this device's reports.
func reportName(d *device.Device) string {
	if name := serial(d); name != "" {
		return name
	}
	name, _ := d.Type() // it was read before; without it the name is "device"
	return name
}

// Names of what reports are compared by.
const (
	resultLine    = "Result:"
	insertionLine = "Plugged in:"
	artifactsHead = "Artifacts on the stick:"
)

// repeats tells whether the latest report on the stick says what now would:
// the same result for the same files, and not of an earlier insertion. A boot
// does not know whether a stick was plugged in before it, or never pulled out;
// so what another boot has left counts. The name of a report may be that of
// another device as well: this one must have had the result, too.
//
// That the device runs what it was told to install, by this stick, is no news.
// That it installed something is.
func (t *teller) repeats(code report.Code, now string) bool {
	same := func(r state.Result) bool { return r.Code == code.Number }
	told := fieldOf(t.told, resultLine)
	switch {
	case code == report.OK:
		return false
	case code == report.UpToDate && told == resultWord(report.OK):
		same = func(r state.Result) bool { return r.Code == code.Number || r.Code == report.OK.Number }
	case told != resultWord(code) || sectionOf(t.told, artifactsHead) != sectionOf(now, artifactsHead):
		return false
	}
	boot, _, _ := strings.Cut(fieldOf(now, insertionLine), ",")
	toldBoot, _, _ := strings.Cut(fieldOf(t.told, insertionLine), ",")
	if boot == toldBoot && fieldOf(now, insertionLine) != fieldOf(t.told, insertionLine) {
		return false
	}
	return slices.ContainsFunc(t.earlier, same)
}

func resultWord(c report.Code) string { return fmt.Sprintf("%s (%d)", c.Name, c.Number) }

// fieldOf is what stands in the line of a report that begins with name.
func fieldOf(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// sectionOf is what stands below head, up to an empty line.
func sectionOf(text, head string) string {
	_, rest, _ := strings.Cut(text, "\r\n"+head+"\r\n")
	section, _, _ := strings.Cut(rest, "\r\n\r\n")
	return strings.TrimSpace(section)
}

// reportText is what a report says, in words for whoever holds the stick.
func (a *agent) reportText(d *device.Device, code report.Code, err error) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-12s %s\r\n", name, report.Printable(value))
		}
	}
	line(resultLine, resultWord(code))
	line("Meaning:", code.Meaning)
	line("What to do:", code.Remedy)
	if err != nil {
		line("Reason:", fmt.Sprintf("%.1024s", oneLine(err)))
	}
	line("Artifact:", a.event("").Artifact)
	if a.tell.wish != nil {
		line("Next:", "A reboot, to "+a.tell.wish.why+".")
	}
	deviceType, _ := d.Type() // left out if it cannot be read: the reason says so
	line("Device type:", deviceType)
	line("Serial:", serial(d))
	if record, err := state.Read(d.DataDir()); err == nil {
		line("Installed:", record.ArtifactName)
	}
	line("Program:", "usb-updater "+version)
	line("Time:", time.Now().UTC().Format(time.RFC3339)+" by the device's clock")
	line(insertionLine, fmt.Sprintf("boot %.8s, disk %d", orNone(d.BootID()), a.tell.stick.Sequence()))
	b.WriteString("\r\n" + artifactsHead + "\r\n")
	for _, note := range a.tell.notes {
		fmt.Fprintf(&b, "  %s\r\n", report.Printable(fmt.Sprintf("%.256s", note)))
	}
	if history, err := state.ReadHistory(d.DataDir(), reportHistory); err == nil && len(history) > 0 {
		b.WriteString("\r\nRuns before, the latest last:\r\n")
		for _, r := range history {
			fmt.Fprintf(&b, "  %s\r\n", historyLine(r))
		}
	}
	return b.String()[:min(b.Len(), mount.MaxReport)]
}

// historyLine is one result in one line.
func historyLine(r state.Result) string {
	return report.Printable(fmt.Sprintf("%s  %s (%d)  %.96s  %.256s",
		r.Time.UTC().Format(time.RFC3339), r.Name, r.Code, orNone(r.Artifact), r.Message))
}

// serial is the device's serial number, "" if the firmware does not tell it.
func serial(d *device.Device) string {
	f, err := os.Open(d.Path("/proc/device-tree/serial-number"))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSerial))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(b), "\x00"))
}

// levelOf is the level at which the reason of an end is logged.
func levelOf(code report.Code) zerolog.Level {
	if code.Quiet() {
		return zerolog.InfoLevel
	}
	return zerolog.ErrorLevel
}
