package health

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/runner"
)

const (
	// DefaultTimeout bounds one check if [Config] does not say.
	DefaultTimeout = time.Minute
	// DefaultStable is how long a required unit is watched if [Config] does
	// not say.
	DefaultStable = 10 * time.Second

	maxChecks  = 256
	maxOutput  = 4 << 10 // bytes of each stream that are kept
	retryPause = 2 * time.Second
)

// Config says what must hold. Nothing set, nothing is checked.
type Config struct {
	Dir     string        // of executables; absolute, "" for none
	Timeout time.Duration // of each check; 0 is DefaultTimeout
	Grace   time.Duration // of executables, from SIGTERM to SIGKILL; 0 is runner.DefaultGrace

	// RequiredUnits must be active, and those that are services must not
	// restart within Stable.
	RequiredUnits []string
	Stable        time.Duration // 0 is DefaultStable
	// AllowFailedUnits are the units that may be failed, as patterns of
	// path.Match. With nil, failed units are no concern; with an empty list
	// none may be failed.
	AllowFailedUnits []string

	TCP   []string // "127.0.0.1:80", "[::1]:80" or "unix:/run/name.sock"
	HTTP  []string // "http://127.0.0.1:8080/path"; any status of 200 to 299 will do
	Files []File

	// Settle bounds the wait for the jobs of the boot, 0 for no wait.
	Settle time.Duration
	// MinUptime is how long the system must have been up before the checks.
	MinUptime time.Duration

	// Socket is where the checks run in a process of their own, see
	// [Checker.Serve]; "" runs them in this one, as happens where nobody listens.
	Socket string

	// NoSystemd is why the service manager must not be asked, "" if it may:
	// that of another machine knows nothing of a simulated device.
	NoSystemd string
}

// File is a file that must be there.
type File struct {
	Path     string // absolute
	Contains string // what its first 256 KiB must hold, "" for anything
}

// Result is what a pass of checks found. As JSON, two processes of the same
// program pass it on.
type Result struct {
	Passed bool
	Ran    []string // names of the checks that ran, in order; executables have their file's name
	// The rest is about the one that failed.
	Failed   string // its name, or "." for the directory of executables itself
	ExitCode int    // of an executable; -1 if it did not run, a signal ended it, or it is none
	Reason   string // one line: "exit status 3", "timed out", "is not executable"
	Output   string // the end of what it printed; safe to print
}

// check tests one thing.
type check interface {
	name() string
	// run returns what is wrong, or the zero verdict. It ends soon after ctx.
	run(ctx context.Context) verdict
}

// verdict is what a check that failed has to say.
type verdict struct {
	reason   string // "" if all is well
	exitCode int
	output   string
	unasked  bool // the check could not even begin
}

func wrong(format string, args ...any) verdict {
	return verdict{reason: fmt.Sprintf(format, args...), exitCode: -1}
}

// Checker runs the checks of one configuration.
type Checker struct {
	config Config
	fixed  []check // all but the executables

	connect connect
	wait    func(context.Context, time.Duration) error
	now     func() time.Time
	uptime  func() (time.Duration, error)
}

// New returns a checker, or says what is wrong with the configuration, in the
// words of usb-updater.conf.
func New(c Config) (*Checker, error) {
	c.Timeout, c.Stable = cmp.Or(c.Timeout, DefaultTimeout), cmp.Or(c.Stable, DefaultStable)
	k := &Checker{config: c, connect: dial, wait: wait, now: time.Now, uptime: uptime}
	if c.NoSystemd != "" {
		k.connect = refuse(c.NoSystemd)
	}
	units, err := k.unitChecks()
	if err != nil {
		return nil, err
	}
	files, err := fileChecks(c.Files)
	if err != nil {
		return nil, err
	}
	probes, err := probes(c.TCP, c.HTTP)
	if err != nil {
		return nil, err
	}
	k.fixed = slices.Concat(units, files, probes)
	if len(k.fixed) > maxChecks {
		return nil, fmt.Errorf("health: more than %d checks", maxChecks)
	}
	return k, nil
}

// Run runs all checks once.
//
// Nothing to check passes with an empty Ran: the caller decides whether that
// will do. The error tells that there is no result because ctx is done. It is
// never about a check.
func (k *Checker) Run(ctx context.Context) (Result, error) {
	if k.config.Socket != "" {
		if res, ok, err := k.ask(ctx); ok || err != nil {
			return res, err
		}
	}
	return k.runHere(ctx)
}

func (k *Checker) runHere(ctx context.Context) (Result, error) {
	executables, bad := k.executables()
	var res Result
	for _, c := range slices.Concat(k.fixed, executables) {
		limit := k.config.Timeout
		if _, ok := c.(requiredUnits); ok {
			limit += k.config.Stable
		}
		v := runOne(ctx, c, limit)
		if ctx.Err() != nil {
			return Result{}, fmt.Errorf("health check: %w", context.Cause(ctx))
		}
		if !v.unasked {
			res.Ran = append(res.Ran, c.name())
		}
		if v.reason != "" {
			return res.fail(c.name(), v), nil
		}
	}
	if bad.reason != "" {
		return res.fail(".", bad), nil
	}
	res.Passed = true
	return res, nil
}

func runOne(ctx context.Context, c check, limit time.Duration) verdict {
	if _, ok := c.(executable); ok { // the runner has its own limit, and ends a whole process group
		return c.run(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	v := c.run(ctx)
	if v.reason != "" && ctx.Err() != nil {
		v.reason = "timed out: " + v.reason
	}
	return v
}

func (r Result) fail(name string, v verdict) Result {
	r.Failed, r.ExitCode = runner.Printable(name), v.exitCode
	r.Reason, r.Output = runner.Printable(v.reason), runner.Printable(v.output)
	return r
}

// Until runs the checks until a pass succeeds, or until the limit is over, and
// returns the last pass. The first pass runs to its end whatever the limit
// says; a later one that is still running when the limit is over does not
// count. failing hears of each pass that failed and is followed by another.
//
// The error is that of [Checker.Run].
func (k *Checker) Until(ctx context.Context, limit time.Duration, failing func(Result)) (Result, error) {
	end := k.now().Add(limit)
	last, err := k.Run(ctx)
	for err == nil && !last.Passed {
		left := end.Sub(k.now())
		if left <= retryPause {
			return last, nil
		}
		failing(last)
		if err := k.wait(ctx, retryPause); err != nil {
			return Result{}, fmt.Errorf("health check: %w", err)
		}
		again, cancel := context.WithTimeout(ctx, left-retryPause)
		next, runErr := k.Run(again)
		cancel()
		if runErr != nil && ctx.Err() == nil { // the limit ended it
			return last, nil
		}
		last, err = next, runErr
	}
	return last, err
}

// wait waits, or returns the cause why ctx is done.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// uptime is the time since the boot, with that spent asleep.
func uptime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("uptime: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
