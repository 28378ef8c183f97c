package report

import (
	"context"
	"fmt"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Status shows a line as the unit's status. Without a service manager, or if
// it does not listen, nothing happens: status is a courtesy.
func Status(format string, args ...any) {
	_, _ = daemon.SdNotify(false, "STATUS="+Printable(fmt.Sprintf(format, args...)))
}

// NewStatus returns a sink that shows events as the unit's status, with the
// percentage, the rate and the time left of the stage (source: sd_notify(3)).
func NewStatus() Sink { return statusSink{} }

type statusSink struct{}

func (statusSink) Send(_ context.Context, e Event) error {
	Status("%s", e.Line())
	return nil
}

func (statusSink) Close() error { return nil }
