// Command mender installs, commits and rolls back Mender artifacts on a device
// that runs without a Mender server. It takes the command lines, and returns
// the exit codes, of Mender's own clients in standalone mode.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/report"
	"github.com/usb-updater/usb-updater/internal/runner"
)

// version is set by the linker.
var version = "devel"

// Exit codes (source: Mender client, standalone mode). They are a contract.
const (
	exitOK             = 0
	exitFailed         = 1
	exitNothingPending = 2
	exitReboot         = 4
	exitPanic          = 70  // an internal error must not look like "nothing pending", as Go's own 2 would
	exitSignal         = 128 // plus the signal's number
)

func main() { os.Exit(mainCode()) }

func mainCode() int {
	ctx, stop := withSignals(context.Background())
	defer stop()
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// signalError is the cause of a context that a signal ended.
type signalError struct{ syscall.Signal }

func (s signalError) Error() string { return "interrupted by signal: " + s.String() }

// withSignals cancels the context at [runner.EndSignals], with the signal as the
// cause. A second signal kills.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, runner.EndSignals()...)
	// Caught, not ignored, so that programs that are run here keep the default:
	// a reader that went away must not end an update half way.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		select {
		case s := <-ch:
			signal.Stop(ch)
			if number, ok := s.(syscall.Signal); ok {
				cancel(signalError{number})
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(ch); cancel(nil) }
}

// program is one run.
type program struct {
	options
	stdout *report.Results
	stderr io.Writer
	log    zerolog.Logger
}

// run is the program without its process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	p := &program{stdout: report.NewResults(stdout), stderr: stderr, log: report.NewLogger(stderr, "mender", zerolog.InfoLevel)}
	defer func() {
		if r := recover(); r != nil {
			p.log.Error().Msgf("internal error: %v", r)
			fmt.Fprintf(stderr, "%s", debug.Stack())
			code = exitPanic
		}
	}()
	var err error
	if p.options, err = parse(args); err != nil {
		p.log.Error().Msg(err.Error())
		fmt.Fprint(stderr, shortUsage)
		return exitFailed
	}
	closeLog, err := p.openLog()
	if err != nil {
		p.log.Error().Msg(err.Error())
		return exitFailed
	}
	defer closeLog()
	code, err = p.dispatch(ctx)
	if err != nil {
		p.explain(err)
	}
	code = p.checkPrinted(code)
	if s, ok := errors.AsType[signalError](context.Cause(ctx)); ok && ended(code, err) {
		return exitSignal + int(s.Signal)
	}
	return code
}

// ended tells whether a run that was told to end has left undone what it was to do.
// What came to its end first has an exit code of its own.
func ended(code int, err error) bool {
	return code == exitFailed && err != nil && !errors.Is(err, install.ErrCommittedWithErrors)
}

// checkPrinted returns the exit code of a run that ends with code, if all that
// it prints is written. Who asks a question must not take silence for an
// answer. What was done to the device is done, whoever hears of it.
func (p *program) checkPrinted(code int) int {
	err := p.stdout.Err()
	if err == nil {
		return code
	}
	const what = "print the result: "
	switch p.command {
	case cmdHelp, cmdVersion, cmdShowArtifact, cmdShowProvides:
		p.log.Error().Msg(what + err.Error())
		return max(code, exitFailed)
	default:
		p.log.Warn().Msg(what + err.Error())
		return code
	}
}

// openLog applies --log-level and --log-file.
func (p *program) openLog() (func(), error) {
	level, ok := zerolog.InfoLevel, true
	if p.logLevel != "" {
		level, ok = report.ParseLevel(p.logLevel)
	}
	if !ok {
		return nil, fmt.Errorf("log level %.64q: %s", p.logLevel, logLevels)
	}
	w, done := p.stderr, func() {}
	if p.logFile != "" {
		f, err := os.OpenFile(p.logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("log file: %w", err)
		}
		w, done = f, func() { _ = f.Close() } // a log that is lost changes no outcome
	}
	p.log = report.NewLogger(w, "mender", level)
	return done, nil
}

const logLevels = "want error, warning, info or debug"

// configureLog applies the log level of mender.conf, if the command line has
// none. A word that is none costs no command.
func (p *program) configureLog(d *device.Device) {
	word := d.Mender.DaemonLogLevel
	if p.logLevel != "" || word == "" {
		return
	}
	level, ok := report.ParseLevel(word)
	if !ok {
		p.log.Warn().Msgf("mender.conf: DaemonLogLevel %.64q: %s", word, logLevels)
		return
	}
	p.log = p.log.Level(level)
}

func (p *program) dispatch(ctx context.Context) (int, error) {
	switch p.command {
	case cmdHelp:
		p.print(usage)
		return exitOK, nil
	case cmdVersion:
		p.print("%s\truntime: %s\n", plainVersion(version), runtime.Version())
		return exitOK, nil
	default: // the others need the device
	}
	d, err := device.Open(p.deviceOptions())
	if err != nil {
		return exitFailed, err
	}
	p.configureLog(d)
	switch p.command {
	case cmdShowArtifact, cmdShowProvides:
		return p.show(d)
	case cmdInstall:
		return p.install(ctx, d)
	case cmdCommit:
		return p.commit(ctx, d)
	case cmdRollback:
		return p.rollback(ctx, d)
	case cmdResume:
		return p.resume(ctx, d)
	default:
		return exitFailed, usageError("no command given")
	}
}

// deviceOptions also honors the variables that Mender's clients know.
func (p *program) deviceOptions() device.Options {
	o := device.Options{
		Root: p.root, ConfigFile: p.config, FallbackFile: p.fallbackConfig, DataDir: p.data,
		ConfigDir: os.Getenv("MENDER_CONF_DIR"), ShareDir: os.Getenv("MENDER_DATA_DIR"),
		// As Mender's client does, which asks its PATH alone.
		ToolDirs: filepath.SplitList(os.Getenv("PATH")),
		// As Mender's clients mean to: an automounter may have been faster.
		UnmountTarget: true,
		Log:           func(line string) { p.log.Info().Msg(line) },
		Warn:          func(line string) { p.log.Warn().Msg(line) },
	}
	if o.DataDir == "" {
		o.DataDir = os.Getenv("MENDER_DATASTORE_DIR")
	}
	return o
}

// print writes results. That they are lost is told at the end of the run.
func (p *program) print(format string, args ...any) {
	_, _ = fmt.Fprintf(p.stdout, format, args...)
}

// plainVersion makes the first word of --version a dotted number, which is
// what scripts look for.
func plainVersion(v string) string {
	v = strings.TrimPrefix(v, "v")
	if parts := strings.SplitN(v, ".", 3); len(parts) < 3 || !isNumber(parts[0]) || !isNumber(parts[1]) || parts[2] == "" || !isNumber(parts[2][:1]) {
		v = "0.0.0-" + v
	}
	return v
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

const shortUsage = "usage: mender install FILE|URL | commit | rollback | resume | show-artifact | show-provides; mender --help\n"

const usage = `mender installs Mender artifacts on a device with two root slots, without a server.

Usage:
  mender install FILE     write the artifact to the inactive slot and try it at the next boot,
                          or hand it to its update module
  mender install URL      the same, from an http or https server
  mender commit           make the new system permanent, after the reboot
  mender rollback         give the new system up; the old one boots next
  mender resume           go on with an update that was stopped or interrupted
  mender show-artifact    print the name of the installed artifact
  mender show-provides    print what the installed artifact provides

Commands may be given with dashes, too: mender -install FILE, mender --commit.
mender-update is another name of this program.

Options:
  -c, --config FILE            configuration (/etc/mender/mender.conf)
  -b, --fallback-config FILE   configuration that --config overrides (/var/lib/mender/mender.conf)
  -d, --data DIR               data directory (/var/lib/mender)
  -E, --trusted-certs FILE     certificates of servers that are trusted besides the system's
      --skipverify             do not verify servers
      --reboot-exit-code       install, resume: exit with 4 when a reboot is required
      --stop-before STATE      stop there, for a later resume; may be given several times:
                               ArtifactInstall_Enter, ArtifactCommit_Enter, ArtifactCommit_Leave,
                               ArtifactRollback_Enter, ArtifactFailure_Enter, Cleanup
      --progress STYLE         install, resume: bar, plain, json (a line for each update) or none, on standard error
  -l, --log-level LEVEL        error, warning, info or debug (info)
  -L, --log-file FILE          write the log to FILE, not to standard error
      --root DIR               act on the simulated device in DIR
  -v, --version                print the version
  -h, --help                   print this text

--no-syslog, --forcebootstrap, --log-modules X and --passphrase-file FILE are accepted, without effect.

Exit codes:
  0  done; after install a reboot and a commit are still needed
  1  failed; the message says what and why
  2  commit, rollback, resume: no update is in progress
  4  with --reboot-exit-code: done, and a reboot is required

Without commit the device returns to the old system at the reboot after the next.
`
