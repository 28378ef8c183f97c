package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/slot"
)

// events are those of an image that is read in four steps.
func events() []install.Event {
	var all []install.Event
	for i := range int64(5) {
		all = append(all, install.Event{
			Step: install.StepWrite, Artifact: "r\"2", Slot: bootenv.B, Bytes: i << 20, Total: 4 << 20,
			Read: i * 100, ReadTotal: 400, Elapsed: time.Duration(i) * 2 * time.Second,
		})
	}
	all[4].Medium = &slot.Stats{Written: 1 << 20, Skipped: 3 << 20, Flushes: 1}
	return append(all, install.Event{Step: install.StepVerify, Slot: bootenv.B}, install.Event{Step: install.StepArm, Slot: bootenv.B})
}

func TestProgress(t *testing.T) {
	for style, want := range map[progressStyle]string{
		progressNone: "",
		progressAuto: `mender: 0% 0 KiB
mender: 20% 1024 KiB
mender: 50% 2048 KiB
mender: 70% 3072 KiB
mender: 100% 4096 KiB
mender: slot B: 1024 KiB written, 3072 KiB were right, 0 KiB zeroed
mender: reading slot B back
`,
		progressBar: "\r..............................   0 %  0 of 4 MiB" +
			"\r#######.......................  25 %  1 of 4 MiB  0.5 MB/s  6s left" +
			"\r###############...............  50 %  2 of 4 MiB  0.5 MB/s  4s left" +
			"\r######################........  75 %  3 of 4 MiB  0.5 MB/s  2s left" +
			"\r############################## 100 %  4 of 4 MiB  0.5 MB/s         \n" +
			"mender: slot B: 1024 KiB written, 3072 KiB were right, 0 KiB zeroed\nmender: reading slot B back\n",
		progressJSON: `{"step":"write","artifact":"r\"2","slot":"B","percent":0,"bytes":0,"total":4194304,"read":0,"read_total":400,"rate":0,"elapsed":0,"left":0}
{"step":"write","artifact":"r\"2","slot":"B","percent":25,"bytes":1048576,"total":4194304,"read":100,"read_total":400,"rate":524288,"elapsed":2,"left":6}
{"step":"write","artifact":"r\"2","slot":"B","percent":50,"bytes":2097152,"total":4194304,"read":200,"read_total":400,"rate":524288,"elapsed":4,"left":4}
{"step":"write","artifact":"r\"2","slot":"B","percent":75,"bytes":3145728,"total":4194304,"read":300,"read_total":400,"rate":524288,"elapsed":6,"left":2}
{"step":"write","artifact":"r\"2","slot":"B","percent":100,"bytes":4194304,"total":4194304,"read":400,"read_total":400,"rate":524288,"elapsed":8,"left":0,"medium":{"written":1048576,"skipped":3145728,"zeroed":0,"compared":0,"flushes":1}}
{"step":"verify","slot":"B","percent":100,"bytes":0,"total":0,"read":0,"read_total":0,"rate":0,"elapsed":0,"left":0}
{"step":"arm","slot":"B","percent":100,"bytes":0,"total":0,"read":0,"read_total":0,"rate":0,"elapsed":0,"left":0}
`,
	} {
		var out bytes.Buffer
		p := newProgress(&out, style)
		for _, ev := range events() {
			p.event(ev)
		}
		p.end()
		if out.String() != want {
			t.Errorf("%s:\n%q, want\n%q", style, out.String(), want)
		}
	}
}

// TestProgressOfModule: a payload of two files, by a module. No slot has a part in it,
// the percentage goes on where a file ends, and so does the rate.
func TestProgressOfModule(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, progressJSON)
	for _, ev := range []install.Event{
		{Step: install.StepWrite, Module: "app", Bytes: 600, Total: 600, Read: 50, ReadTotal: 100, Elapsed: 2 * time.Second},
		{Step: install.StepWrite, Module: "app", Bytes: 100, Total: 400, Before: 600, Read: 80, ReadTotal: 100, Elapsed: 2 * time.Second},
		{Step: install.StepInstall, Module: "app"},
	} {
		p.event(ev)
	}
	const want = `{"step":"write","module":"app","percent":50,"bytes":600,"total":600,"read":50,"read_total":100,"rate":300,"elapsed":2,"left":2}
{"step":"write","module":"app","percent":80,"bytes":100,"total":400,"read":80,"read_total":100,"rate":350,"elapsed":2,"left":0.5}
{"step":"install","module":"app","percent":100,"bytes":0,"total":0,"read":0,"read_total":0,"rate":0,"elapsed":0,"left":0}
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
}
