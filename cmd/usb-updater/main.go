// Command usb-updater updates a device with two root slots from a USB stick,
// unattended: it chooses an artifact, installs it, reboots, checks the new
// system, and commits it or goes back.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/gate"
	"github.com/usb-updater/usb-updater/internal/report"
	"github.com/usb-updater/usb-updater/internal/runner"
)

// version is set by the linker.
var version = "devel"

func main() { os.Exit(mainCode()) }

func mainCode() int {
	ctx, stop := signal.NotifyContext(context.Background(), runner.EndSignals()...)
	// Caught, not ignored, so that programs that are run here keep the default:
	// a reader that went away must not end an update half way.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	defer stop()
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// agent is one run.
type agent struct {
	stdout *report.Results
	log    zerolog.Logger
	opts   device.Options
	json   bool
	dryRun bool
	giveUp bool
	// leaving: the trial was rolled back, and all that is left is the reboot.
	leaving bool
	// lockWait is how long to wait for another program to release the store.
	lockWait time.Duration
	// queueWait is how long to wait for other runs of the agent.
	queueWait time.Duration
	// sleep waits, until its context ends.
	sleep func(context.Context, time.Duration) error
	// scanLimit and stallLimit bound what a stick may take; 0 is the usual.
	scanLimit, stallLimit time.Duration
	check                 checkOptions
	history               int    // how many earlier results status shows
	name                  string // of the verb
	args                  []string
	tell                  *teller // nil until the device's lock is held
}

// verb is a command of the agent. Each returns the code that the run ends
// with; an error is printed.
type verb struct {
	name, args, help string
	nargs            int
	run              func(*agent, context.Context) (report.Code, error)
}

func verbs() []verb {
	return []verb{
		{"run", "DEVICE", "install what the stick holds, if anything fits, and reboot", 1, (*agent).update},
		{"list", "DEVICE|DIR", "tell what run would choose, and why it refuses the rest", 1, (*agent).list},
		{"check", "FILE", "verify an artifact to its last byte, without a device, and tell what it is", 1, (*agent).checkArtifact},
		{"boot-check", "", "after a trial boot: check the system, commit it or roll it back", 0, (*agent).bootCheck},
		{"status", "", "tell what runs, what is pending and how the last run ended", 0, (*agent).status},
		{"doctor", "", "look for all that an update needs on this device; changes nothing", 0, (*agent).doctor},
		{"scan", "", "run for every stick that is plugged in", 0, (*agent).scan},
		{"watch", "", "run for every stick that comes; for systems without systemd", 0, (*agent).watch},
		{"codes", "", "print the result codes", 0, (*agent).codes},
		{"version", "", "print the version", 0, (*agent).version},
		// Not for people.
		{inspectorVerb, "", "", 0, (*agent).inspectStick},
		{checksVerb, "", "", 0, (*agent).serveChecks},
	}
}

// run is the program without its process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	a := &agent{
		stdout: report.NewResults(stdout), log: report.NewLogger(stderr, "usb-updater", zerolog.InfoLevel),
		queueWait: queueWait, sleep: gate.Pause,
	}
	defer func() {
		if r := recover(); r != nil {
			a.log.Error().Msgf("internal error: %v", r)
			fmt.Fprintf(stderr, "%s", debug.Stack())
			a.hush(ctx)
			code = report.Failed.Number
		}
	}()
	v, err := a.parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		a.print("%s", usage())
		return a.checkPrinted("help", report.OK).Number
	case err != nil:
		a.log.Error().Msg(err.Error())
		a.log.Info().Msg("hint: usb-updater --help")
		return report.Usage.Number
	}
	a.name = v.name
	result, err := v.run(a, ctx)
	result = a.checkPrinted(v.name, final(ctx, result))
	a.end(ctx, result, err)
	return result.Number
}

// checkPrinted returns the code of a run that ends with code, if all that it
// prints is written. Who asks a question must not take silence for an answer.
// What a run has done is done, whoever hears of it.
func (a *agent) checkPrinted(verb string, code report.Code) report.Code {
	err := a.stdout.Err()
	switch {
	case err == nil:
		return code
	case verb == "scan", code != report.OK:
		a.log.Warn().Msgf("print the result: %v", err)
		return code
	default:
		a.log.Error().Msgf("print the result: %v", err)
		return report.Failed
	}
}

// end tells how the run ended, if that was not told under the device's lock.
func (a *agent) end(ctx context.Context, code report.Code, err error) {
	if a.tell == nil || a.tell.ended == nil {
		a.sayEnd(code, err)
	}
	a.hush(ctx)
}

func (a *agent) parse(args []string, stderr io.Writer) (verb, error) {
	fs := flag.NewFlagSet("usb-updater", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	level := fs.String("log-level", "info", "")
	journal := fs.Bool("journal", os.Getenv("JOURNAL_STREAM") != "", "")
	help := fs.Bool("help", false, "")
	fs.BoolVar(help, "h", false, "")
	showVersion := fs.Bool("version", false, "")
	// An empty value, as of a shell variable that is not set, must not stand for
	// the real device.
	text := func(name string, use func(string)) {
		fs.Func(name, "", func(value string) error {
			if value == "" {
				return errors.New("it is empty")
			}
			use(value)
			return nil
		})
	}
	text("root", func(v string) { a.opts.Root = v })
	text("mender-config", func(v string) { a.opts.ConfigFile = v })
	text("config", func(v string) { a.opts.AgentFile = v })
	text("data", func(v string) { a.opts.DataDir = v })
	fs.BoolVar(&a.json, "json", false, "")
	fs.BoolVar(&a.dryRun, "dry-run", false, "")
	fs.BoolVar(&a.giveUp, "give-up", false, "")
	fs.IntVar(&a.history, "history", 0, "")
	text("key", func(v string) { a.check.keys = append(a.check.keys, v) })
	text("device-type", func(v string) { a.check.deviceType = v })
	text("provides", func(v string) { a.check.provides = v })
	text("module", func(v string) { a.check.modules = append(a.check.modules, v) })
	fs.Int64Var(&a.check.slotSize, "slot-size", 0, "")

	// Flags may stand before and behind the command.
	var words []string
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			return verb{}, err
		}
		if args = fs.Args(); len(args) > 0 {
			words, args = append(words, args[0]), args[1:]
		}
	}
	switch {
	case *help || len(words) == 0 && !*showVersion || len(words) > 0 && words[0] == "help":
		return verb{}, flag.ErrHelp
	case *showVersion:
		words = []string{"version"}
	}
	if err := a.openLog(stderr, *level, *journal); err != nil {
		return verb{}, err
	}
	for _, v := range verbs() {
		if v.name != words[0] {
			continue
		}
		a.args = words[1:]
		if len(a.args) != v.nargs {
			return verb{}, fmt.Errorf("%s: want %d argument(s), got %d", v.name, v.nargs, len(a.args))
		}
		return v, nil
	}
	return verb{}, fmt.Errorf("%.64q is not a command", words[0])
}

// openLog writes to the journal with fields where systemd started the
// program, and lines for people elsewhere.
func (a *agent) openLog(stderr io.Writer, word string, journal bool) error {
	level, ok := report.ParseLevel(word)
	if !ok {
		return fmt.Errorf("log level %.64q: want error, warning, info or debug", word)
	}
	a.log = report.NewLogger(stderr, "usb-updater", level)
	if journal {
		if log, ok := report.NewJournalLogger(level); ok {
			a.log = log
		}
	}
	a.opts.ToolDirs = filepath.SplitList(os.Getenv("PATH")) // as mender does, whose updates it ends
	a.opts.Log = func(line string) { a.log.Info().Msg(line) }
	a.opts.Warn = func(line string) { a.log.Warn().Msg(line) }
	return nil
}

// print writes results. That they are lost is told at the end of the run.
func (a *agent) print(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stdout, format, args...)
}

func (a *agent) version(context.Context) (report.Code, error) {
	a.print("%s\truntime: %s\n", version, runtime.Version())
	return report.OK, nil
}

func (a *agent) codes(context.Context) (report.Code, error) {
	for _, c := range report.Codes() {
		a.print("%3d  %-22s %s\n", c.Number, c.Name, c.Meaning)
		if !c.Quiet() || c == report.NoArtifact || c == report.Pending {
			a.print("%29s→ %s\n", "", c.Remedy)
		}
	}
	return report.OK, nil
}

func usage() string {
	var b strings.Builder
	b.WriteString("usb-updater updates a device with two root slots from a USB stick, unattended.\n\nUsage:\n")
	for _, v := range verbs() {
		if v.help == "" {
			continue
		}
		fmt.Fprintf(&b, "  usb-updater %-16s %s\n", strings.TrimSpace(v.name+" "+v.args), v.help)
	}
	b.WriteString(`
Options:
  --config FILE          configuration (/etc/usb-updater/usb-updater.conf)
  --mender-config FILE   Mender's configuration (/etc/mender/mender.conf)
  --data DIR             Mender's data directory (/var/lib/mender)
  --dry-run              run: decide, but write nothing
  --give-up              boot-check: check nothing; if a trial is open, roll it back and reboot
  --json                 list, status, check, doctor: print JSON
  --history N            status: show the latest N results
  --key FILE             check: a public key that must have signed; may be repeated
  --device-type TYPE     check: the device's type
  --provides FILE        check: what the device provides, a JSON object of strings
  --slot-size BYTES      check: the size of the device's slots
  --module TYPE          check: an update module of the device; may be repeated
  --log-level LEVEL      error, warning, info or debug (info)
  --root DIR             act on the simulated device in DIR

usb-updater codes prints the exit codes and what to do about each.
`)
	return b.String()
}
