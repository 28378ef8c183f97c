package health

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	settlePause = time.Second
	// settleLooks is how often in a row nothing must run: between the end of
	// one job and the start of the next there is a moment without any.
	settleLooks = 2
)

// Settle waits until the boot is over: until systemd runs no job any more, and
// until the system has been up for its minimum time.
//
// The state that systemd gives the whole system does not tell, because it
// stays "starting" as long as the unit that asks has not finished. So the
// queue is looked at: nothing runs in it but our own job and those of the
// agent's units, and what waits, waits for us. Another run of the agent, for
// another partition of the stick, waits for the lock that this one holds.
//
// A boot that does not settle in time is no failure by itself; the checks
// judge it. The note says what was still running then, or why systemd could
// not be asked; it is "" if the boot settled. The error is the cause of ctx.
func (k *Checker) Settle(ctx context.Context) (note string, err error) {
	if k.config.Settle > 0 {
		if note, err = k.settleJobs(ctx); err != nil {
			return "", fmt.Errorf("settle: %w", err)
		}
	}
	for k.config.MinUptime > 0 {
		up, err := k.uptime()
		if err != nil {
			return note, err
		}
		if up >= k.config.MinUptime {
			break
		}
		if err := k.wait(ctx, k.config.MinUptime-up); err != nil {
			return "", fmt.Errorf("settle: %w", err)
		}
	}
	return note, nil
}

func (k *Checker) settleJobs(ctx context.Context) (note string, err error) {
	limited, cancel := context.WithTimeout(ctx, k.config.Settle)
	defer cancel()
	manager, closeConn, err := k.connect(limited)
	if err != nil {
		return err.Error(), done(ctx)
	}
	defer closeConn()
	self, err := manager.GetUnitNameByPID(limited, uint32(os.Getpid()))
	if err != nil {
		self = "" // started by hand: no job is ours
	}
	end := k.now().Add(k.config.Settle)
	for quiet := 0; ; {
		jobs, err := manager.ListJobsContext(limited)
		if err != nil {
			return fmt.Sprintf("ask for jobs: %v", err), done(ctx)
		}
		var running []string
		for _, j := range jobs {
			if j.Status == "running" && j.Unit != self && !matches(j.Unit, ownUnits()) {
				running = append(running, j.Unit)
			}
		}
		if len(running) > 0 {
			quiet = 0
		} else if quiet++; quiet == settleLooks {
			return "", nil
		}
		if !k.now().Before(end) || k.wait(limited, settlePause) != nil {
			return stillRunning(running), done(ctx)
		}
	}
}

func stillRunning(units []string) string {
	if len(units) == 0 {
		return ""
	}
	return "still running: " + enumerate(units)
}

// done returns the cause of ctx, if it is done.
func done(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}
