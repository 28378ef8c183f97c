package main

import (
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/report"
)

// TestRepeats: which results a stick that holds a report is not told of.
func TestRepeats(t *testing.T) {
	text := func(code report.Code, insertion, files string) string {
		return "Result:      " + resultWord(code) + "\r\nPlugged in:  " + insertion + "\r\n\r\nArtifacts on the stick:\r\n" + files + "\r\n\r\nRuns before:\r\n  x\r\n"
	}
	had := func(codes ...report.Code) (r []state.Result) {
		for _, c := range codes {
			r = append(r, state.Result{Code: c.Number})
		}
		return r
	}
	refused, upToDate, ok := report.Refused, report.UpToDate, report.OK
	tests := []struct {
		name      string
		told      string // on the stick
		earlier   []state.Result
		code      report.Code
		insertion string
		want      bool
	}{
		{"nothing was told", "", had(refused), refused, "boot a, disk 1", false},
		{"the same run again", text(refused, "boot a, disk 1", "f"), had(refused), refused, "boot a, disk 1", true},
		{"left in over a boot", text(refused, "boot a, disk 7", "f"), had(refused, ok), refused, "boot b, disk 1", true},
		{"plugged in again", text(refused, "boot a, disk 1", "f"), had(refused), refused, "boot a, disk 2", false},
		{"other files", text(refused, "boot a, disk 1", "g"), had(refused), refused, "boot a, disk 1", false},
		{"other result", text(report.BadArtifact, "boot a, disk 1", "f"), had(report.BadArtifact, refused), refused, "boot a, disk 1", false},
		{"told by another device", text(refused, "boot a, disk 1", "f"), had(ok), refused, "boot b, disk 1", false},
		{"device without a history", text(refused, "boot a, disk 1", "f"), nil, refused, "boot b, disk 1", false},
		{"installed again", text(ok, "boot a, disk 1", "f"), had(ok), ok, "boot b, disk 1", false},
		{"installed, then up to date", text(ok, "boot a, disk 1", "g"), had(ok), upToDate, "boot b, disk 1", true},
		{"installed by another device", text(ok, "boot a, disk 1", "g"), had(refused), upToDate, "boot b, disk 1", false},
		{"installed, plugged in again", text(ok, "boot a, disk 1", "g"), had(ok), upToDate, "boot a, disk 2", false},
		{"up to date again", text(upToDate, "boot a, disk 1", "f"), had(upToDate), upToDate, "boot b, disk 1", true},
		{"torn report", text(refused, "boot a, disk 1", "f")[:30], had(refused), refused, "boot a, disk 1", false},
		{"any bytes", strings.Repeat("\x00\xff\r\n", 1000), had(refused), refused, "boot a, disk 1", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			teller := &teller{told: tt.told, earlier: tt.earlier}
			if got := teller.repeats(tt.code, text(tt.code, tt.insertion, "f")); got != tt.want {
				t.Errorf("repeats = %v, want %v", got, tt.want)
			}
		})
	}
}
