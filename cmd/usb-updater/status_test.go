package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/report"
)

func TestStatusGolden(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 2, 3, hour, 0, 0, 0, time.UTC) }
	committed := state.Record{
		ArtifactName: "release-2", Provides: map[string]string{"rootfs-image.version": "2", "rootfs-image.checksum": "ab"},
		Result: &state.Result{Code: 50, Name: "health-failed", Artifact: "release-3", Message: "health check 10-db failed", Time: at(5)},
		Failed: map[string]state.Failure{
			"bb": {Name: "release-3", Attempts: 1, Reason: "no \x1b[31mdatabase", Time: at(5)},
			"aa": {Name: "release-1", Attempts: 2, Reason: "hung", Time: at(4)},
		},
	}
	trial := state.Record{
		ArtifactName: "release-2",
		Pending: &state.Pending{
			ArtifactName: "release-3", PayloadTypes: []string{"rootfs-image"}, OriginalSlot: "A", TargetSlot: "B",
		},
	}
	first := state.Record{Pending: trial.Pending} // no update has ever been committed
	foreign := state.Record{Pending: &state.Pending{ArtifactName: "release-9"}}
	module := state.Record{
		ArtifactName: "release-2",
		Pending:      &state.Pending{ArtifactName: "app-5", PayloadTypes: []string{"app"}, InState: state.ArtifactInstallEnter},
	}
	tests := []struct {
		name    string
		record  state.Record
		booted  bootenv.Slot
		boot    bootStatus
		history []state.Result
	}{
		{"committed", committed, bootenv.B, bootStatus{Loader: "uboot", Phase: "steady", Next: "B", Default: "B"}, []state.Result{*committed.Result}},
		{"trial", trial, bootenv.B, bootStatus{Loader: "uboot", Phase: "trial", Next: "A", Default: "A"}, nil},
		{"armed", trial, bootenv.A, bootStatus{Loader: "uboot", Phase: "armed", Next: "B", Default: "A"}, nil},
		{"first update, armed", first, bootenv.A, bootStatus{Loader: "uboot", Phase: "armed", Next: "B", Default: "A"}, nil},
		{"foreign", foreign, bootenv.A, bootStatus{Error: "boot loader: not found"}, nil},
		{"module", module, bootenv.A, bootStatus{Loader: "uboot", Phase: "steady", Next: "A", Default: "A"}, nil},
	}
	var out bytes.Buffer
	a := &agent{stdout: report.NewResults(&out)}
	for _, tt := range tests {
		s := deviceStatus{Version: statusVersion, Type: "board", History: tt.history, Boot: &tt.boot}
		s.record(tt.record, "running")
		s.slots(tt.record, "running", tt.booted, "/dev/mmcblk0p2", "/dev/mmcblk0p3")
		a.print("# %s\n", tt.name)
		if err := a.printJSON(s); err != nil {
			t.Fatal(err)
		}
		a.printStatus(s)
	}
	golden := filepath.Join("testdata", "status.golden")
	if os.Getenv("UPDATE_SCRIPTS") != "" {
		if err := os.WriteFile(golden, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}
