package main

import (
	"fmt"
	"time"

	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/report"
)

// progress logs steps and every tenth of the image, and keeps the unit's
// status up to date with the rate and the time left. The engine sends a few
// events a second at most.
func (a *agent) progress() func(install.Event) {
	tenth, shown := -1, ""
	return func(ev install.Event) {
		if ev.Step != install.StepWrite {
			report.Status("%s", ev.Step)
			a.log.Info().Str("artifact", ev.Artifact).Str("step", string(ev.Step)).Msg("step: " + string(ev.Step))
			return
		}
		if s := status(ev); s != shown {
			shown = s
			report.Status("%s", s)
		}
		if t := ev.Percent() / 10; t != tenth {
			tenth = t
			a.log.Info().Str(destination(ev)).Int64("bytes", ev.Bytes).Int64("rate", ev.Rate()).Msgf("writing: %d %%", tenth*10)
		}
		if m := ev.Medium; m != nil {
			a.log.Info().Str("slot", ev.Slot.String()).Int64("written", m.Written).Int64("skipped", m.Skipped).Int64("zeroed", m.Zeroed).Msg("slot written")
		}
	}
}

// status is what systemctl status shows while a slot is written.
func status(ev install.Event) string {
	what, which := destination(ev)
	s := fmt.Sprintf("writing %s %s: %d %%", what, which, ev.Percent())
	if rate := ev.Rate(); rate > 0 {
		s += fmt.Sprintf(", %.1f MB/s", float64(rate)/1e6)
	}
	if left := ev.Left().Round(time.Second); left > 0 {
		s += fmt.Sprintf(", %v left", left)
	}
	return s
}

// destination says what an update goes to, a slot or an update module, as the
// name and the value of a field.
func destination(ev install.Event) (name, value string) {
	if ev.Module != "" {
		return "module", ev.Module
	}
	return "slot", ev.Slot.String()
}
