package main

import (
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/report"
)

// progress logs steps and every tenth of the image, and keeps the unit's
// status up to date.
func (a *agent) progress() func(install.Event) {
	tenth := int64(-1)
	return func(ev install.Event) {
		switch ev.Step {
		case install.StepWrite:
			if ev.Total == 0 || ev.Bytes*10/ev.Total == tenth {
				return
			}
			tenth = ev.Bytes * 10 / ev.Total
			if ev.Module != "" {
				report.Status("update module %s: %d %%", ev.Module, tenth*10)
				a.log.Info().Str("module", ev.Module).Int64("bytes", ev.Bytes).Msgf("reading: %d %%", tenth*10)
				return
			}
			report.Status("writing slot %s: %d %%", ev.Slot, tenth*10)
			a.log.Info().Str("slot", ev.Slot.String()).Int64("bytes", ev.Bytes).Msgf("writing: %d %%", tenth*10)
		default:
			report.Status("%s", ev.Step)
			a.log.Info().Str("artifact", ev.Artifact).Str("step", string(ev.Step)).Msg("step: " + string(ev.Step))
		}
	}
}
