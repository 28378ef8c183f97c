package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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

// usedStick is the stick of a run.
type usedStick struct {
	dev    string
	number uint64
	opts   mount.Options
}

// leaveReport leaves a report on the stick, if the device is configured to. It
// changes no outcome. A stick without an artifact is somebody's own, and a result
// that comes again with every boot is told once.
func (a *agent) leaveReport(ctx context.Context, d *device.Device, code report.Code, err error) {
	t := a.tell
	if !d.Agent.WriteReport || a.dryRun || t.stick == nil || len(t.notes) == 0 || ctx.Err() != nil {
		return
	}
	if code.Quiet() && code != report.OK && t.earlier.Code == code.Number {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, reportLimit, errors.New("the stick took too long"))
	defer cancel()
	name := serial(d)
	if name == "" {
		name, _ = d.Type() // it was read before; without it the name is "device"
	}
	path, err := mount.WriteReport(ctx, t.stick.dev, t.stick.number, name, a.reportText(d, code, err), t.stick.opts)
	if err != nil {
		a.log.Warn().Err(err).Msg("no report on the stick")
		return
	}
	a.log.Info().Str("file", path).Msg("report left on the stick")
}

// reportText is what a report says, in words for whoever holds the stick.
func (a *agent) reportText(d *device.Device, code report.Code, err error) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-12s %s\r\n", name, report.Printable(value))
		}
	}
	line("Result:", fmt.Sprintf("%s (%d)", code.Name, code.Number))
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
	b.WriteString("\r\nArtifacts on the stick:\r\n")
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
