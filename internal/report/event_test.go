package report

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// TestEventIsBounded: whatever a stick puts into a name, the JSON form fits into
// what a hook can be given, and is one line.
func TestEventIsBounded(t *testing.T) {
	worst := TrialFailed
	for _, c := range Codes() {
		if len(c.Meaning)+len(c.Remedy) > len(worst.Meaning)+len(worst.Remedy) {
			worst = c
		}
	}
	for _, fill := range []string{`"`, `\`, "\x00", "\n", "<", "\xff", "€", "\u2028", "\x1b[2J"} {
		s := strings.Repeat(fill, 5000)
		e := Event{
			Kind: KindProgress, Run: s, BlockDev: s, Artifact: s, Slot: "A", Module: s, Stage: s, Percent: 100,
			Bytes: 1 << 62, Total: 1 << 62, Rate: 1 << 62, Left: 1 << 62, Result: &worst, Waiting: true, Message: s,
		}
		line := e.JSON()
		if len(line) >= MaxEventJSON || bytes.ContainsAny(line, "\n\x1b") || !json.Valid(line) {
			t.Errorf("JSON with names of %q: %d bytes, want less than %d in one valid line", fill, len(line), MaxEventJSON)
		}
		if l := e.Line(); strings.ContainsAny(l, "\n\x1b") {
			t.Errorf("Line with names of %q = %.80q", fill, l)
		}
	}
}

func TestEventJSON(t *testing.T) {
	tests := []struct {
		in   Event
		want string
	}{
		{Event{Kind: KindStart, Run: "run", BlockDev: "sda1", Percent: -1}, `{"version":1,"event":"start","run":"run","blockdev":"sda1","percent":-1}`},
		{
			Event{Kind: KindProgress, Artifact: "r", Slot: "B", Stage: "write", Percent: 0, Bytes: 1, Total: 2, Rate: 3, Left: 4},
			`{"version":1,"event":"progress","artifact":"r","slot":"B","stage":"write","percent":0,"bytes":1,"total":2,"rate":3,"left":4}`,
		},
		{
			Event{Kind: KindEnd, Percent: -1, Result: &Busy, Waiting: true, Message: "m"},
			`{"version":1,"event":"end","percent":-1,"result":{"code":44,"name":"busy","meaning":"Another update operation is running.","remedy":"Wait for it."},"waiting":true,"message":"m"}`,
		},
	}
	for _, tt := range tests {
		if got := string(tt.in.JSON()); got != tt.want {
			t.Errorf("JSON = %s, want %s", got, tt.want)
		}
	}
}

func TestLogEvent(t *testing.T) {
	var out bytes.Buffer
	log := zerolog.New(&out)
	Log(log, Event{Kind: KindEnd, Run: "run", BlockDev: "sda1", Artifact: "r\x1b", Slot: "B", Stage: "verify", Result: &SlotFailed})
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"level": "info", "message": "run ended: " + SlotFailed.Meaning, "message_id": KindEnd.MessageID(), "run": "run",
		"blockdev": "sda1", "artifact": "r?", "slot": "B", "stage": "verify", "result": "slot-failed", "code": 40.0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Log (-want +got):\n%s", diff)
	}
	out.Reset()
	Log(NewLogger(&out, "prog", zerolog.InfoLevel), Event{Kind: KindStage, Stage: "arm", Slot: "B"})
	if want := "prog: stage: arm slot=B stage=arm\n"; out.String() != want {
		t.Errorf("Log for people = %q, want %q", out.String(), want)
	}
}

// TestCatalog: each kind has an entry in the message catalog, and each entry a
// form that journalctl takes (source: systemd, catalog format).
func TestCatalog(t *testing.T) {
	b, err := os.ReadFile("../../systemd/usb-updater.catalog")
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`)
	entries := map[string]string{}
	for i, entry := range strings.Split("\n"+string(b), "\n-- ") {
		if i == 0 {
			for line := range strings.Lines(entry) {
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
					t.Errorf("before the first entry: %q", line)
				}
			}
			continue
		}
		name, text, _ := strings.Cut(entry, "\n")
		header, body, ok := strings.Cut(text, "\n\n")
		if !id.MatchString(name) || !ok || strings.TrimSpace(body) == "" {
			t.Errorf("entry %q has no id, no header or no text", name)
		}
		for _, field := range []string{"Subject: ", "Defined-By: usb-updater\n", "Documentation: man:usb-updater(8)"} {
			if !strings.Contains(header, field) {
				t.Errorf("entry %s lacks %q", name, field)
			}
		}
		entries[name] = text
	}
	for _, k := range Kinds() {
		if entries[k.MessageID()] == "" {
			t.Errorf("the catalog lacks %s, %s", k.MessageID(), k)
		}
		delete(entries, k.MessageID())
	}
	for name := range entries {
		t.Errorf("the catalog has %s, which no event has", name)
	}
}
