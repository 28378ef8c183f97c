package main

import (
	"context"
	"strings"
	"time"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/report"
)

// result is how a run ended, with what it was about.
type result struct {
	code     report.Code
	artifact string
	err      error
}

// save puts the result into the record and the history.
func (r result) save(d *device.Device, store *state.Store) error {
	message := r.code.Meaning
	if r.err != nil {
		message = strings.ReplaceAll(r.err.Error(), "\n", "; ") // joined errors have a line each
	}
	record, err := store.Load()
	if err != nil {
		return err
	}
	record.Result = &state.Result{
		Code: r.code.Number, Name: r.code.Name, Artifact: r.artifact, Message: message, Time: time.Now().UTC(),
	}
	if err := store.Save(record); err != nil {
		return err
	}
	return state.AppendHistory(d.DataDir(), *record.Result)
}

// deviceStatus is what status prints, as JSON.
type deviceStatus struct {
	Type     string        `json:"device_type"`
	Artifact string        `json:"artifact_name"`
	Slot     string        `json:"booted_slot"`
	Pending  string        `json:"pending_artifact,omitempty"`
	Result   *state.Result `json:"last_result,omitempty"`
}

// status tells how the device is. It takes no lock and writes nothing.
func (a *agent) status(context.Context) (report.Code, error) {
	d, err := device.Open(a.opts)
	if err != nil {
		return report.ConfigFailed, err
	}
	record, err := state.Read(d.DataDir())
	if err != nil {
		return report.StateFailed, err
	}
	slots, err := d.Slots()
	if err != nil {
		return report.ConfigFailed, err
	}
	var s deviceStatus
	if s.Type, err = d.Type(); err != nil {
		return report.ConfigFailed, err
	}
	s.Artifact, s.Slot, s.Result = record.ArtifactName, slots.Booted.String(), record.Result
	if s.Artifact == "" {
		if s.Artifact, err = d.RunningName(); err != nil {
			return report.ConfigFailed, err
		}
	}
	if record.Pending != nil {
		s.Pending = record.Pending.ArtifactName
	}
	if a.json {
		return report.OK, a.printJSON(s)
	}
	a.print("device    %s\n", report.Printable(s.Type))
	a.print("runs      %s, slot %s\n", report.Printable(orUnknown(s.Artifact)), s.Slot)
	if s.Pending != "" {
		a.print("pending   %s\n", report.Printable(s.Pending))
	}
	if r := s.Result; r != nil {
		a.print("last run  %s (%d), artifact %s\n", r.Name, r.Code, report.Printable(r.Artifact))
		a.print("          %s\n", report.Printable(r.Message))
	}
	return report.OK, nil
}
