package report

import (
	"fmt"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Status shows a line as the unit's status. Without a service manager, or if
// it does not listen, nothing happens: status is a courtesy.
func Status(format string, args ...any) {
	_, _ = daemon.SdNotify(false, "STATUS="+Printable(fmt.Sprintf(format, args...)))
}
