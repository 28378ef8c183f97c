package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Kind is what an [Event] is about.
type Kind string

// The kinds, in the order in which a run sends them.
const (
	KindStart    Kind = "start"    // a run has begun
	KindChosen   Kind = "chosen"   // an artifact was chosen and is going to be installed
	KindStage    Kind = "stage"    // a stage of the update has begun
	KindProgress Kind = "progress" // how far the stage is
	KindReboot   Kind = "reboot"   // a reboot is required; it follows at once, or somebody else starts it
	KindEnd      Kind = "end"      // the run has ended
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{KindStart, KindChosen, KindStage, KindProgress, KindReboot, KindEnd}
}

// MessageID returns the identifier of a kind in the journal, 128 bits in
// hexadecimal, "" for any other word. It never changes (source: sd-journal,
// "MESSAGE_ID="; systemd/usb-updater.catalog has a text for each).
func (k Kind) MessageID() string {
	switch k {
	case KindStart:
		return "f3e54d9ecf694141a3d7f61acb1d58bd"
	case KindChosen:
		return "f319199584b242ababeac2fb509a6d37"
	case KindStage:
		return "5f4d0cd3c8bf4ef8990409597ee8b20a"
	case KindProgress:
		return "3693ba216c164b418e6a0864144a5d29"
	case KindReboot:
		return "50b4fe5da38a487dbf9966527b3f9db3"
	case KindEnd:
		return "d5c4bc8fd84a4a268500f880d0220d63"
	default:
		return ""
	}
}

// EventVersion is the version of the JSON form of an [Event]. Members may be
// added to a version; what one means never changes.
const EventVersion = 1

// Bounds of what an event holds, in bytes.
const (
	maxEventName    = 96
	maxEventMessage = 256
)

// Event is one thing that a run tells. Which members are set depends on the
// kind; those that are not are left out of the JSON form, except Percent.
type Event struct {
	Kind     Kind   `json:"event"`
	Run      string `json:"run,omitempty"`      // "run" or "boot-check"
	BlockDev string `json:"blockdev,omitempty"` // kernel's name of the stick
	Artifact string `json:"artifact,omitempty"` // its name
	Slot     string `json:"slot,omitempty"`     // "A" or "B": where it goes
	Module   string `json:"module,omitempty"`   // update module that installs it, instead of a slot
	Stage    string `json:"stage,omitempty"`    // "write", "verify", "arm", "install", "commit", "rollback", "recover"
	Percent  int    `json:"percent"`            // of the stage, 0 to 100; -1 if it cannot be told
	Bytes    int64  `json:"bytes,omitempty"`    // of the payload, so far
	Total    int64  `json:"total,omitempty"`    // of the payload
	Rate     int64  `json:"rate,omitempty"`     // bytes of the payload a second
	Left     int64  `json:"left,omitempty"`     // seconds that the stage will take, as far as can be told
	Result   *Code  `json:"result,omitempty"`   // KindEnd: how the run ended
	Waiting  bool   `json:"waiting,omitempty"`  // KindReboot and KindEnd: the device waits for a reboot
	Message  string `json:"message,omitempty"`  // KindEnd: the reason in words, if there is one
}

// Bounded returns the event with its texts cut to what an event may hold, and
// without characters that a terminal would act on: names come from a stick.
func (e Event) Bounded() Event {
	for _, s := range []*string{&e.BlockDev, &e.Artifact, &e.Module, &e.Run, &e.Stage} {
		*s = cut(Printable(*s), maxEventName)
	}
	e.Message = cut(Printable(e.Message), maxEventMessage)
	return e
}

// JSON returns the event as one line without its line end. It has less than
// [MaxEventJSON] bytes.
func (e Event) JSON() []byte {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false) // six bytes for one
	err := enc.Encode(struct {
		Version int `json:"version"`
		Event
	}{EventVersion, e.Bounded()})
	if err != nil {
		panic(fmt.Sprintf("report: internal error: encode event: %v", err))
	}
	return bytes.TrimSuffix(line.Bytes(), []byte("\n"))
}

// MaxEventJSON bounds the JSON form of an event, in bytes: two for each byte of
// a text, and the rest.
const MaxEventJSON = 4 << 10

// cut shortens s to at most n bytes, at the border of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Line says what the event is in one line for people, without a line end.
func (e Event) Line() string {
	e = e.Bounded()
	where := "slot " + e.Slot
	if e.Module != "" {
		where = "module " + e.Module
	}
	switch e.Kind {
	case KindStart:
		if e.BlockDev != "" {
			return "looking at stick " + e.BlockDev
		}
		return "looking at what the last boot left open"
	case KindChosen:
		return fmt.Sprintf("installing %q to %s", e.Artifact, where)
	case KindStage:
		return e.Stage
	case KindProgress:
		return e.progressLine(where)
	case KindReboot:
		return "a reboot is required"
	case KindEnd:
		if e.Result == nil {
			return "the run ended"
		}
		line := fmt.Sprintf("%s (%d): %s", e.Result.Name, e.Result.Number, e.Result.Meaning)
		if e.Message != "" {
			line += " " + e.Message
		}
		return line
	default:
		return string(e.Kind)
	}
}

func (e Event) progressLine(where string) string {
	what := "writing"
	if e.Stage != "write" {
		what = e.Stage
	}
	s := what + " " + where
	if e.Percent >= 0 {
		s += fmt.Sprintf(": %d %%", e.Percent)
	}
	if e.Rate > 0 {
		s += fmt.Sprintf(", %.1f MB/s", float64(e.Rate)/1e6)
	}
	if e.Left > 0 {
		s += fmt.Sprintf(", %ds left", e.Left)
	}
	return s
}
