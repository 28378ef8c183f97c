package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/report"
)

// listing is what list prints, as JSON.
type listing struct {
	Device struct {
		Type    string `json:"device_type"`
		Name    string `json:"artifact_name"`
		Version string `json:"version,omitempty"`
	} `json:"device"`
	Artifacts []listed `json:"artifacts"`
}

type listed struct {
	File    string `json:"file"`
	Name    string `json:"artifact_name,omitempty"`
	Version string `json:"version,omitempty"`
	Chosen  bool   `json:"chosen"`
	Rule    string `json:"rule"`
	Reason  string `json:"reason"`
}

// list explains what run would do. It takes no lock, and writes nothing.
func (a *agent) list(ctx context.Context) (report.Code, error) {
	d, err := device.Open(a.opts)
	if err != nil {
		return report.ConfigFailed, err
	}
	slots, err := d.Slots()
	if err != nil {
		return report.ConfigFailed, err
	}
	self, err := a.profile(d, slots)
	if err != nil {
		return report.ConfigFailed, err
	}
	stick, err := a.openStick(ctx, self, true)
	if err != nil {
		return codeOf(err, report.StickFailed), err
	}
	defer stick.Close() // its private mount ends with the process at the latest
	found, err := a.candidates(ctx, self, stick)
	if err != nil {
		return codeOf(err, report.StickFailed), err
	}
	decision := decide(self, found)

	var out listing
	out.Device.Type, out.Device.Name, out.Device.Version = self.deviceType, self.name, self.record.Provides["rootfs-image.version"]
	out.Artifacts = make([]listed, len(found))
	for i, c := range found {
		v := decision.Verdicts[i]
		out.Artifacts[i] = listed{File: c.entry.Path, Chosen: i == decision.Chosen, Rule: string(v.Rule), Reason: v.Reason}
		if c.header != nil {
			out.Artifacts[i].Name, out.Artifacts[i].Version = c.header.Name, c.header.Provides["rootfs-image.version"]
		}
	}
	if decision.Chosen >= 0 {
		if code, obstacle := a.obstacle(ctx, d); obstacle != nil {
			x := &out.Artifacts[decision.Chosen]
			x.Chosen, x.Rule, x.Reason = false, code.Name, oneLine(obstacle)
		}
	}
	if a.json {
		return report.OK, a.printJSON(out)
	}
	a.printListing(out)
	return report.OK, nil
}

// obstacle is why run would not come as far as to look at a stick, with the code
// that it would end with.
func (a *agent) obstacle(ctx context.Context, d *device.Device) (report.Code, error) {
	if err := heldOff(d); err != nil {
		return report.Inhibited, err
	}
	action, _, err := d.Engine(asItIs{d}).Inspect(ctx)
	switch {
	case err != nil:
		return codeOf(err, report.BootEnvFailed), err
	case action == install.ActionRefuse:
		return report.BootEnvFailed, install.ErrInconsistent
	case action == install.ActionNone || action == install.ActionFail || action == install.ActionFinish: // run closes it
		return report.OK, nil
	default:
		return report.Pending, errors.New("an update is not closed yet: " + action.String())
	}
}

// asItIs is the record of updates as it is now, for one who does not lock it.
type asItIs struct{ *device.Device }

// Load reads the record.
func (r asItIs) Load() (state.Record, error) { return state.Read(r.DataDir()) }

// Save refuses.
func (asItIs) Save(state.Record) error { return errors.New("the record is read only here") }

// printJSON prints a document that is as safe for a terminal as it is for a
// program: the names in it may be a stick's.
func (a *agent) printJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	a.print("%s\n", escapeJSON(text))
	return nil
}

// escapeJSON escapes what encoding/json leaves as it is and a terminal does
// not: DEL, C1 controls, marks that turn the direction of text.
func escapeJSON(text []byte) []byte {
	safe := make([]byte, 0, len(text))
	for _, r := range string(text) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			safe = utf8.AppendRune(safe, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			safe = fmt.Appendf(safe, `\u%04x\u%04x`, high, low)
		default:
			safe = fmt.Appendf(safe, `\u%04x`, r)
		}
	}
	return safe
}

func (a *agent) printListing(l listing) {
	a.print("device   %s, runs %s\n", report.Printable(l.Device.Type), report.Printable(orUnknown(l.Device.Name)))
	if len(l.Artifacts) == 0 {
		a.print("         no *.mender file on the stick\n")
	}
	for _, x := range l.Artifacts {
		mark := "refuse "
		if x.Chosen {
			mark = "install"
		}
		a.print("%s  %s", mark, report.Printable(x.File))
		if x.Name != "" {
			a.print("  %s", report.Printable(x.Name))
		}
		a.print("\n         %s: %s\n", x.Rule, report.Printable(x.Reason))
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "an unknown release"
	}
	return s
}
