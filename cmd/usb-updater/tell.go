package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usb-updater/usb-updater/internal/config"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/report"
)

const (
	// drainMargin is what telling the end may take beyond one call of the hook.
	// Both fit into the time that systemd gives a unit that it stops.
	drainMargin = 1500 * time.Millisecond
	// canceledLED is how long a light shows a result although the run was told
	// to stop: one turn of a small code, and less than systemd's patience.
	canceledLED = 4 * time.Second
	closeLimit  = time.Second
	// maxErrorLines bounds what one error may put into the log.
	maxErrorLines = 32
	verbRun       = "run"
	verbBootCheck = "boot-check"
)

// teller knows what a run has told, and to whom. All methods of the agent that
// use it work without one, and then only log.
type teller struct {
	sinks  *report.Sinks // nil: only the log hears of the run
	lit    *atomic.Bool  // a light shows the run
	ledFor time.Duration
	hookIn time.Duration

	mu    sync.Mutex   // the engine reports from its own goroutines
	known report.Event // what each event repeats
	begun bool

	present    func() error // whether the stick is still there; nil if nobody knows
	stick      *mount.Stick // that was opened; nil if none was
	told       string       // the latest report of this device on the stick
	notes      []string     // verdicts about candidates
	wish       *rebootWish
	remembered bool
	ended      *report.Code   // nil: the end was not told
	earlier    []state.Result // how the runs before ended
}

// rebootWish is a reboot that the run asked for. It is the last thing that a
// run does, when everybody has heard of its end.
type rebootWish struct{ why, argument string }

// speak makes the run heard. It is called under the device's lock: the socket
// and the light belong to one run at a time.
func (a *agent) speak(d *device.Device) {
	t := &teller{known: report.Event{Run: a.name, Percent: -1}, lit: &atomic.Bool{}}
	a.tell = t
	if a.name == verbRun && len(a.args) > 0 {
		t.known.BlockDev = a.args[0]
	}
	t.earlier, _ = state.ReadHistory(d.DataDir(), reportHistory) // without it, reports repeat each other
	if !a.dryRun {
		t.ledFor, t.hookIn = d.Agent.LEDTime(), d.Agent.HookTimeout()
		warn := func(name string, err error) {
			a.log.Warn().Err(err).Str("sink", name).Msg("somebody could not be told")
		}
		t.sinks = report.NewSinks(time.Now, warn, sinks(d, t.lit)...)
	}
	if a.name == verbRun { // most boots have nothing to check, and nothing to tell
		a.say(a.event(report.KindStart))
	}
}

// sinks are those that the configuration asks for.
func sinks(d *device.Device, lit *atomic.Bool) []report.Named {
	c := d.Agent
	out := []report.Named{{Name: "status", Sink: report.NewStatus()}}
	if c.ProgressSocket {
		out = append(out, report.Named{Name: "socket", Sink: report.Lazy(func(context.Context) (report.Sink, error) {
			return report.ListenSocket(filepath.Join(d.RunDir(), report.SocketName))
		})})
	}
	if c.LED != "" {
		out = append(out, report.Named{Name: "led", Sink: report.Lazy(func(ctx context.Context) (report.Sink, error) {
			led, err := report.OpenLED(ctx, d.Path("/sys"), c.LED, time.After)
			if err != nil {
				return nil, err
			}
			lit.Store(true)
			return led, nil
		})})
	}
	if c.Console {
		out = append(out, report.Named{Name: "console", Sink: report.NewConsole(d.Path("/dev/console"))})
	}
	if c.Plymouth && !d.Simulated() { // there it would be the one of this machine
		out = append(out, report.Named{Name: "plymouth", Sink: report.NewPlymouth(report.PlymouthAddress)})
	}
	if c.Hook != "" {
		out = append(out, report.Named{Name: "hook", Sink: report.NewHook(d.Path(c.Hook), c.HookTimeout())})
	}
	return out
}

// event returns an event that holds what is known so far.
func (a *agent) event(kind report.Kind) report.Event {
	if a.tell == nil {
		return report.Event{Kind: kind, Run: a.name, Percent: -1}
	}
	a.tell.mu.Lock()
	defer a.tell.mu.Unlock()
	e := a.tell.known
	e.Kind = kind
	return e
}

// say logs the event and passes it on.
func (a *agent) say(e report.Event) {
	report.Log(a.log, e)
	a.pass(e)
}

// pass passes the event on without logging it. The first one begins the run.
func (a *agent) pass(e report.Event) {
	t := a.tell
	if t == nil || t.sinks == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.begun {
		t.begun = true
		if e.Kind != report.KindStart {
			t.sinks.Send(report.Event{Kind: report.KindStart, Run: e.Run, BlockDev: e.BlockDev, Percent: -1})
		}
	}
	t.known.Artifact, t.known.Slot, t.known.Module, t.known.Stage = e.Artifact, e.Slot, e.Module, e.Stage
	t.sinks.Send(e)
}

// afresh forgets what was told since known was all that was known: another
// update than that of the run.
func (t *teller) afresh(known report.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known, t.remembered = known, false
}

// stage tells that a stage has begun that the engine does not know of.
func (a *agent) stage(name string) {
	e := a.event(report.KindStage)
	e.Stage = name
	a.say(e)
}

// note keeps a line for the report on the stick.
func (a *agent) note(line string) {
	if a.tell != nil {
		a.tell.notes = append(a.tell.notes, line)
	}
}

// final is the code that a run ends with: a run that was told to stop has no
// other reason.
func final(ctx context.Context, code report.Code) report.Code {
	if ctx.Err() != nil && code != report.OK && code != report.StickRemoved {
		return report.Canceled
	}
	return code
}

// conclude ends a run on a device: it is kept in the history and told to
// everybody. The stick is closed by now.
func (a *agent) conclude(ctx context.Context, d *device.Device, code report.Code, err error) report.Code {
	code = final(ctx, code)
	quietCheck := a.name == verbBootCheck && code == report.NothingToDo
	if !a.tell.remembered && !a.dryRun && !quietCheck {
		res := result{code: code, artifact: a.event("").Artifact, err: err}
		if err := res.append(d); err != nil {
			a.log.Warn().Err(err).Msg("the result could not be recorded")
		}
	}
	a.leaveReport(ctx, d, code, err)
	a.sayEnd(code, err)
	return code
}

// follow starts the reboot that a run asked for, if it did. That is the last
// thing that a run does.
func (a *agent) follow(ctx context.Context, d *device.Device, code report.Code, err error) (report.Code, error) {
	if a.tell == nil || a.tell.wish == nil {
		return code, err
	}
	a.drain()
	if rebootErr := a.startReboot(ctx, d, *a.tell.wish); rebootErr != nil {
		a.tell.ended = nil // the last word counts
		return report.Failed, errors.Join(err, rebootErr)
	}
	return code, err
}

// sayEnd logs why the run ended, and what to do about it, and tells how.
func (a *agent) sayEnd(code report.Code, err error) {
	a.sayError(code, err)
	if a.name == verbRun || a.name == verbBootCheck {
		a.sayResult(code, err)
	}
	if err != nil && !code.Quiet() && code != report.Failed { // whose remedy is to read what was just said
		a.log.Info().Msg("hint: " + code.Remedy)
	}
}

func (a *agent) sayError(code report.Code, err error) {
	if err == nil {
		return
	}
	n := 0
	for line := range strings.Lines(err.Error()) {
		if n++; n > maxErrorLines {
			break
		}
		a.log.WithLevel(levelOf(code)).Msg(strings.TrimSpace(line))
	}
}

// sayResult tells the end of a run to all who hear of it.
func (a *agent) sayResult(code report.Code, err error) {
	e := a.event(report.KindEnd)
	e.Result, e.Percent = &code, -1
	if err != nil {
		e.Message = oneLine(err)
	}
	if a.tell == nil {
		report.Log(a.log, e)
		report.Status("%s", e.Line())
		return
	}
	a.tell.ended = &code
	e.Waiting = a.tell.wish != nil
	if code == report.NothingToDo && !a.tell.begun {
		report.Log(a.log, e)
		return
	}
	if e.Waiting {
		r := a.event(report.KindReboot)
		r.Waiting = true
		a.say(r)
	}
	a.say(e)
}

// oneLine puts joined errors, which have a line each, into one.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// drain waits until everybody has heard of the end, but not for long.
func (a *agent) drain() {
	if a.tell == nil || a.tell.sinks == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.tell.hookIn+drainMargin)
	defer cancel()
	a.tell.sinks.Drain(ctx)
}

// hush ends the telling. A light shows the end for a while before, unless the
// stick is pulled out: somebody has to look at it. The device's lock is free by
// then.
func (a *agent) hush(ctx context.Context) {
	t := a.tell
	if t == nil || t.sinks == nil {
		return
	}
	ended := time.Now()
	a.drain()
	if t.lit.Load() {
		shown, cancel := whilePresent(ctx, t.present)
		defer cancel()
		hold, stop := t.ledFor, shown.Done()
		if ctx.Err() != nil || t.present != nil && t.present() != nil {
			hold, stop = min(hold, canceledLED), nil
		}
		select {
		case <-time.After(hold - time.Since(ended)):
		case <-stop:
		}
	}
	limit, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	t.sinks.Close(limit)
	a.tell = nil
}

// reboot asks for the reboot that the update needs. It comes when the run has
// ended. The argument is what it passes to the firmware, "" if nothing.
func (a *agent) reboot(why, argument string) { a.tell.wish = &rebootWish{why, argument} }

// startReboot starts a reboot, or leaves it to others.
func (a *agent) startReboot(ctx context.Context, d *device.Device, w rebootWish) error {
	with := ""
	if w.argument != "" {
		with = fmt.Sprintf(", with the argument %q", w.argument)
	}
	switch {
	case d.Agent.Reboot == config.RebootNever:
		a.log.Info().Msg("a reboot is required to " + w.why + with)
		return nil
	case d.Simulated():
		a.log.Info().Msg("rebooting to " + w.why + with)
		return simulateReboot(d, w.argument)
	default:
		a.log.Info().Msg("rebooting to " + w.why + with)
		return a.rebootSystem(ctx, w.argument)
	}
}

// destination says what an update goes to, a slot or an update module.
func destination(e *report.Event, ev install.Event) {
	if ev.Module != "" {
		e.Module, e.Slot = ev.Module, ""
	} else {
		e.Slot, e.Module = ev.Slot.String(), ""
	}
}
