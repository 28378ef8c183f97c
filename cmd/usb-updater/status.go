package main

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/config"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/report"
)

// statusVersion is the version of the JSON form of a deviceStatus. Members may
// be added to a version; what one means never changes.
const statusVersion = 1

// unknownState is the state of an update that a newer client has begun.
const unknownState = "in a state that this program does not know"

// shownDigest is how much of a digest names an artifact whose name is not known.
const shownDigest = 12

// deviceStatus is what status prints, as JSON. docs/reporting.md describes it.
type deviceStatus struct {
	Version  int               `json:"version"`
	Type     string            `json:"device_type"`
	Artifact string            `json:"artifact_name"`
	Release  string            `json:"artifact_version,omitempty"`
	Provides map[string]string `json:"provides,omitempty"`
	Slot     string            `json:"booted_slot,omitempty"`
	Slots    []slotStatus      `json:"slots,omitempty"`
	Boot     *bootStatus       `json:"boot,omitempty"`
	// Pending is the name alone, PendingUpdate all about it.
	Pending       string         `json:"pending_artifact,omitempty"`
	PendingUpdate *pendingStatus `json:"pending,omitempty"`
	// Result is how the last update ended, Run how the last run did: of most
	// sticks nothing is installed.
	Result  *state.Result  `json:"last_result,omitempty"`
	Run     *state.Result  `json:"last_run,omitempty"`
	Failed  []failedStatus `json:"failed,omitempty"`
	Tried   []triedStatus  `json:"tried,omitempty"`
	History []state.Result `json:"history,omitempty"`
}

// slotStatus is one slot. Artifact is "" if it is not known what it holds.
type slotStatus struct {
	Name     string `json:"slot"`
	Device   string `json:"device"`
	Runs     bool   `json:"runs"`
	Artifact string `json:"artifact_name,omitempty"`
}

// bootStatus is what boot loader and running system say together.
type bootStatus struct {
	Loader  string `json:"loader,omitempty"`
	Phase   string `json:"phase,omitempty"`
	Next    string `json:"next_slot,omitempty"`
	Default string `json:"permanent_slot,omitempty"`
	Error   string `json:"error,omitempty"`
}

type pendingStatus struct {
	Artifact string `json:"artifact_name"`
	Slot     string `json:"slot,omitempty"`
	Module   string `json:"module,omitempty"`
	State    string `json:"state"` // of Mender's standalone state; "waiting for commit" if it is in none
}

type failedStatus struct {
	Digest string `json:"manifest_sha256"`
	state.Failure
}

// triedStatus is an artifact that was tried without coming to a trial that failed.
type triedStatus struct {
	Digest string `json:"manifest_sha256"`
	Name   string `json:"artifact_name"`
	Starts int    `json:"starts,omitempty"`
	Broken int    `json:"broken,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// status tells how the device is. It takes no lock and writes nothing. What
// cannot be read is left out, and its code is that of the run.
func (a *agent) status(ctx context.Context) (report.Code, error) {
	d, err := device.Open(a.opts)
	if err != nil {
		return report.ConfigFailed, err
	}
	s, code, err := a.look(ctx, d)
	if a.json {
		return code, errors.Join(err, a.printJSON(s))
	}
	a.printStatus(s)
	return code, err
}

// look reads all that status shows. What cannot be read is left out; the code is
// that of the first error.
func (a *agent) look(ctx context.Context, d *device.Device) (s deviceStatus, code report.Code, err error) {
	s, code = deviceStatus{Version: statusVersion}, report.OK
	missing := func(c report.Code, e error) {
		if e != nil && err == nil {
			code = c
		}
		err = errors.Join(err, e)
	}
	record, recordErr := state.Read(d.DataDir()) // of a damaged one what is left
	missing(report.StateFailed, recordErr)
	var e error
	s.Type, e = d.Type()
	missing(report.ConfigFailed, e)
	running, e := d.RunningName()
	missing(report.ConfigFailed, e)
	s.record(record, running)
	if errors.Is(recordErr, state.ErrStateVersion) {
		s.PendingUpdate = &pendingStatus{State: unknownState}
	}
	history, e := state.ReadHistory(d.DataDir(), max(a.history, 1))
	missing(report.StateFailed, e)
	if n := len(history); n > 0 {
		s.Run = &history[n-1]
	}
	if a.history > 0 {
		s.History = history
	}
	slots, e := d.Slots()
	if errors.Is(e, config.ErrNoSlots) { // update modules only
		return s, code, err
	}
	nameA, nameB, namesErr := d.Mender.Slots()
	if e = cmp.Or(e, namesErr); e != nil {
		missing(report.ConfigFailed, e)
		return s, code, err
	}
	s.slots(record, running, slots.Booted, nameA, nameB)
	s.Boot, e = bootState(ctx, d, slots)
	missing(report.BootEnvFailed, e)
	return s, code, err
}

// record fills in what the record of updates says.
func (s *deviceStatus) record(r state.Record, running string) {
	s.Artifact, s.Result, s.Provides = cmp.Or(r.ArtifactName, running), r.Result, r.Provides
	s.Release = r.Provides["rootfs-image.version"]
	if p := r.Pending; p != nil {
		s.Pending = p.ArtifactName
		s.PendingUpdate = &pendingStatus{Artifact: p.ArtifactName, State: cmp.Or(p.InState, "waiting for commit")}
		if p.Slotted() {
			s.PendingUpdate.Slot = p.TargetSlot
		} else {
			s.PendingUpdate.Module = p.PayloadTypes[0]
		}
	}
	for digest, f := range r.Failed {
		s.Failed = append(s.Failed, failedStatus{digest, f})
	}
	for digest, k := range r.Known {
		pending := r.Pending != nil && r.Pending.ManifestDigest == digest
		if _, failed := r.Failed[digest]; failed || pending || k.Starts+k.Broken == 0 {
			continue
		}
		s.Tried = append(s.Tried, triedStatus{digest, k.Name, k.Starts, k.Broken, k.Reason})
	}
	slices.SortFunc(s.Tried, func(a, b triedStatus) int { return cmp.Compare(r.Known[a.Digest].Seq, r.Known[b.Digest].Seq) })
	slices.SortFunc(s.Failed, func(a, b failedStatus) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Digest, b.Digest))
	})
}

// slots fills in what is known of both slots. What the inactive one holds is
// known only while an update of a slot is pending: at other times it may be half
// of something, and nobody has kept what it was.
func (s *deviceStatus) slots(r state.Record, running string, booted bootenv.Slot, nameA, nameB string) {
	s.Slot = booted.String()
	holds := map[string]string{s.Slot: s.Artifact}
	if p := r.Pending; p != nil && p.Slotted() {
		holds = map[string]string{}
		if p.TargetSlot != "" {
			holds[p.TargetSlot] = p.ArtifactName
			holds[p.OriginalSlot] = r.ArtifactName
		}
		holds[s.Slot] = cmp.Or(holds[s.Slot], running) // what it says itself
	}
	for i, device := range []string{nameA, nameB} {
		name := bootenv.Slot(i).String()
		s.Slots = append(s.Slots, slotStatus{Name: name, Device: device, Runs: name == s.Slot, Artifact: holds[name]})
	}
}

// bootState asks the boot loader. On error the result says so.
func bootState(ctx context.Context, d *device.Device, slots install.Slots) (*bootStatus, error) {
	b, err := d.Boot(slots)
	out := &bootStatus{Loader: string(b.Kind)}
	if err == nil {
		var st bootenv.State
		if st, err = b.Loader.State(ctx); err == nil {
			out.Phase, out.Next, out.Default = st.Phase.String(), st.Next.String(), st.Default.String()
			return out, nil
		}
	}
	out.Error = oneLine(err)
	return out, err
}

func (a *agent) printStatus(s deviceStatus) {
	line := func(name, format string, args ...any) {
		for i, arg := range args {
			if text, ok := arg.(string); ok {
				args[i] = report.Printable(text)
			}
		}
		a.print("%-9s "+format+"\n", append([]any{name}, args...)...)
	}
	line("device", "%s", cmp.Or(s.Type, "of unknown type"))
	runs := s.Artifact
	for _, x := range s.Slots {
		if x.Runs {
			runs = x.Artifact // on a trial boot it is not the committed one
		}
	}
	if s.Slot == "" {
		line("runs", "%s", orUnknown(runs))
	} else {
		line("runs", "%s, slot %s", orUnknown(runs), s.Slot)
	}
	for _, x := range s.Slots {
		mark := ""
		if x.Runs {
			mark = ", runs"
		}
		line("slot "+x.Name, "%s, holds %s%s", x.Device, orUnknown(x.Artifact), mark)
	}
	if b := s.Boot; b != nil && b.Phase != "" {
		line("boot", "%s: slot %s boots next, %s is permanent (%s)", b.Phase, b.Next, b.Default, b.Loader)
	}
	if p := s.PendingUpdate; p != nil {
		line("pending", "%s, %s", cmp.Or(p.Artifact, "an update of another client"), p.State)
	}
	told := func(label string, r *state.Result) {
		line(label, "%s (%d), artifact %s", r.Name, r.Code, orNone(r.Artifact))
		line("", "%s", r.Message)
	}
	last := cmp.Or(s.Run, s.Result)
	if last != nil {
		told("last run", last)
	}
	if s.Result != nil && *s.Result != *last {
		told("update", s.Result)
	}
	for _, f := range s.Failed {
		line("failed", "%s, %d time(s): %s", cmp.Or(f.Name, "manifest "+f.Digest[:min(len(f.Digest), shownDigest)]), f.Attempts, f.Reason)
	}
	for _, t := range s.Tried {
		line("tried", "%s, started %d and broke %d time(s): %s", t.Name, t.Starts, t.Broken, cmp.Or(t.Reason, "nobody could tell why"))
	}
	for _, r := range s.History {
		line("history", "%s", historyLine(r))
	}
}
