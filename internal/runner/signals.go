package runner

import (
	"os"
	"os/signal"
	"syscall"
)

// EndSignals returns the signals that are to end a run of ours, and what it runs.
// Those of a terminal are not among them where they were ignored when the program was
// started, as nohup and shells have it for what is to go on without one.
func EndSignals() []os.Signal {
	heeded := []os.Signal{syscall.SIGTERM}
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			heeded = append(heeded, s)
		}
	}
	return heeded
}
