package main

import (
	"time"

	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/report"
)

// progress turns what the engine reports into events. Stages and every tenth of
// the image are logged, so that the log of a run is short whatever it installs;
// the rest goes to those who follow the run.
func (a *agent) progress() func(install.Event) {
	tenth, stage := -1, install.Step("")
	return func(ev install.Event) {
		e := a.event(report.KindStage)
		e.Stage, e.Percent = string(ev.Step), -1
		if ev.Artifact != "" {
			e.Artifact = ev.Artifact
		}
		destination(&e, ev)
		if ev.Step != install.StepWrite || ev.Step != stage {
			stage = ev.Step
			a.say(e)
		}
		if ev.Step != install.StepWrite {
			return
		}
		e.Kind, e.Percent = report.KindProgress, ev.Percent()
		e.Bytes, e.Total, e.Rate, e.Left = ev.Bytes, ev.Total, ev.Rate(), int64(ev.Left().Round(time.Second)/time.Second)
		if t := e.Percent / 10; t > tenth { // a module's payload has many files
			tenth = t
			report.Log(a.log, e)
		}
		a.pass(e)
		if m := ev.Medium; m != nil {
			a.log.Info().Str("slot", ev.Slot.String()).Int64("written", m.Written).Int64("skipped", m.Skipped).Int64("zeroed", m.Zeroed).Msg("slot written")
		}
	}
}
