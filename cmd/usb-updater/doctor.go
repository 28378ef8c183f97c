package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/report"
)

// level is how bad a finding is.
type level string

const (
	levelOK   level = "ok"
	levelWarn level = "warn"
	levelFail level = "FAIL"
)

// finding is one line of the doctor.
type finding struct {
	Level   level  `json:"level"`
	Check   string `json:"check"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// doctor collects findings.
type doctor struct {
	device   *device.Device
	findings []finding
}

func (x *doctor) add(l level, check, message, hint string) {
	x.findings = append(x.findings, finding{Level: l, Check: check, Message: report.Printable(message), Hint: hint})
}

func (x *doctor) ok(check, format string, args ...any) {
	x.add(levelOK, check, fmt.Sprintf(format, args...), "")
}

func (x *doctor) warn(check, hint, format string, args ...any) {
	x.add(levelWarn, check, fmt.Sprintf(format, args...), hint)
}

// fail notes an error.
func (x *doctor) fail(check, hint string, err error) { x.add(levelFail, check, err.Error(), hint) }

// doctor looks at all that an update needs, and changes nothing. It takes no
// lock but those of the boot environment, as every reader does, and it runs
// programs only if they stand between us and the boot loader.
func (a *agent) doctor(ctx context.Context) (report.Code, error) {
	x := &doctor{}
	x.examine(ctx, a)
	failed := 0
	for _, f := range x.findings {
		if f.Level == levelFail {
			failed++
		}
	}
	code := report.OK
	if failed > 0 {
		code = report.Failed
	}
	if a.json {
		return code, a.printJSON(struct {
			Failed   int       `json:"failed"`
			Findings []finding `json:"findings"`
		}{failed, x.findings})
	}
	for _, f := range x.findings {
		a.print("%-4s  %-16s  %s\n", f.Level, f.Check, f.Message)
		if f.Hint != "" {
			a.print("%24s→ %s\n", "", f.Hint)
		}
	}
	return code, nil
}

// examine asks in the order in which an update needs the answers.
func (x *doctor) examine(ctx context.Context, a *agent) {
	d, err := device.Open(a.opts)
	if err != nil {
		x.fail("configuration", "Correct the file that the message names; docs/configuration.md lists all keys.", err)
		return
	}
	x.device = d
	x.ok("configuration", "mender.conf and usb-updater.conf are valid")
	x.keys()
	if typ, err := d.Type(); err != nil {
		x.fail("device type", "Write one line device_type=NAME into the file; artifacts name the types that they are for.", err)
	} else {
		x.ok("device type", "%q", typ)
	}
	record, err := state.Read(d.DataDir())
	if err != nil {
		x.fail("record", "Check the data partition. A store that is damaged is set aside by the next run.", err)
	} else {
		x.ok("record", "%s runs, by the store in %s", orUnknown(record.ArtifactName), d.DataDir())
	}
	if slots, ok := x.slots(); ok {
		x.data(slots)
		x.boot(ctx, slots)
	}
	if err := d.CheckManaged(); err != nil {
		x.fail("managed client", report.ManagedClient.Remedy, err)
	}
	x.healthChecks()
	x.people()
	x.hang()
	x.system()
}

func (x *doctor) keys() {
	keys, err := x.device.Keys()
	switch {
	case err != nil:
		x.fail("keys", "Nothing can be installed until the key file is a readable public key in PEM.", err)
	case len(keys) > 0:
		x.ok("keys", "%d verification key(s)", len(keys))
	case x.device.Agent.AllowUnsigned:
		x.warn("keys", "Set ArtifactVerifyKey in mender.conf.", "no verification key: whoever has a stick can install anything")
	default:
		x.fail("keys", "Set ArtifactVerifyKey in mender.conf, or AllowUnsigned in usb-updater.conf.", errors.New("no verification key: nothing installs unattended"))
	}
}

// slots returns false if they are not known, so that the rest has no meaning.
func (x *doctor) slots() (install.Slots, bool) {
	const check = "slots"
	slots, err := x.device.Slots()
	if err != nil {
		x.fail(check, "RootfsPartA and RootfsPartB in mender.conf must be the two root partitions, one of them mounted as /.", err)
		return slots, false
	}
	x.ok(check, "A is %s, partition %d, %d bytes; B is %s, partition %d, %d bytes",
		slots.A.Path, slots.A.Number, slots.A.Size, slots.B.Path, slots.B.Number, slots.B.Size)
	if slots.A.Size != slots.B.Size {
		x.warn(check, "An image that fits the larger slot is refused in the other one.", "the slots differ in size")
	}
	how, err := x.device.BootedBy()
	if err != nil {
		x.fail("running slot", "", err)
		return slots, false
	}
	x.ok("running slot", "%s, by %s", slots.Booted, how)
	return slots, true
}

// readOnly is the store of an engine that only looks.
type readOnly struct{ dir string }

func (s readOnly) Load() (state.Record, error) { return state.Read(s.dir) }

func (s readOnly) Save(state.Record) error {
	return errors.New("internal error: the doctor saves a record")
}
