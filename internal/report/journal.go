package report

import (
	"github.com/rs/zerolog"
)

// fieldMessageID is what the journal knows a kind of event by. Lines for people
// leave it out.
const fieldMessageID = "message_id"

// Log writes the event to the log at once: to the journal with the fields
// MESSAGE_ID, RESULT, CODE, ARTIFACT, SLOT, MODULE, STAGE and BLOCKDEV, as far
// as they apply, and as a line for people elsewhere. Unlike a [Sink] it is in
// order with all else that is logged.
func Log(log zerolog.Logger, e Event) {
	e = e.Bounded()
	line := log.Info().Str(fieldMessageID, e.Kind.MessageID())
	for _, f := range []struct{ name, value string }{
		{"run", e.Run}, {"blockdev", e.BlockDev}, {"artifact", e.Artifact}, {"slot", e.Slot}, {"module", e.Module}, {"stage", e.Stage},
	} {
		if f.value != "" {
			line = line.Str(f.name, f.value)
		}
	}
	if e.Kind == KindProgress {
		line = line.Int64("bytes", e.Bytes).Int64("rate", e.Rate)
	}
	if e.Result != nil {
		line = line.Str("result", e.Result.Name).Int("code", e.Result.Number)
	}
	line.Msg(e.logMessage())
}

// logMessage is the fixed phrase of the event: what varies is in the fields.
func (e Event) logMessage() string {
	switch e.Kind {
	case KindStart:
		return "run started"
	case KindChosen:
		return "installing"
	case KindStage:
		return "stage: " + e.Stage
	case KindReboot:
		return "reboot required"
	case KindEnd:
		if e.Result != nil {
			return "run ended: " + e.Result.Meaning
		}
		return "run ended"
	default:
		return e.Line()
	}
}
