package main

import (
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
	record, err := store.Load()
	if err != nil {
		return err
	}
	now := r.record()
	record.Result = &now
	if err := store.Save(record); err != nil {
		return err
	}
	return state.AppendHistory(d.DataDir(), now)
}

// append puts the result into the history only.
func (r result) append(d *device.Device) error { return state.AppendHistory(d.DataDir(), r.record()) }

func (r result) record() state.Result {
	message := r.code.Meaning
	if r.err != nil {
		message = oneLine(r.err)
	}
	return state.Result{Code: r.code.Number, Name: r.code.Name, Artifact: r.artifact, Message: message, Time: time.Now().UTC()}
}
