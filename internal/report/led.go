package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Flash is a time of light and the time of darkness after it.
type Flash struct{ On, Off time.Duration }

// Pattern is what a light shows again and again. A pattern without darkness is
// steady light.
type Pattern []Flash

// Lengths of the patterns' parts.
const (
	beat      = 250 * time.Millisecond // working
	blip      = 100 * time.Millisecond // waiting for a reboot
	flash     = 300 * time.Millisecond // one of a digit
	longFlash = 1500 * time.Millisecond
	digitGap  = 1200 * time.Millisecond // between two digits
	codeGap   = 2500 * time.Millisecond // before the code comes again
)

// Working is two flashes a second. The program makes each of them: a light that
// stands still means that the program does.
func Working() Pattern { return Pattern{{beat, beat}} }

// Safe is steady light: the stick may be removed.
func Safe() Pattern { return Pattern{{time.Second, 0}} }

// WaitingForReboot is a pair of short flashes every two seconds.
func WaitingForReboot() Pattern {
	return Pattern{{blip, 2 * blip}, {blip, 2*time.Second - 4*blip}}
}

// Blink is the code as a light shows it: two digits, tens first.
func (c Code) Blink() [2]int { return [2]int{c.Number / 10 % 10, c.Number % 10} }

// Failure is the result code of c in two digits, tens first: as many flashes as
// the digit says, one long flash for 0, a pause after each digit and a longer
// one at the end.
func Failure(c Code) Pattern {
	var p Pattern
	for _, digit := range c.Blink() {
		if digit == 0 {
			p = append(p, Flash{longFlash, flash})
		}
		for range digit {
			p = append(p, Flash{flash, flash})
		}
		p[len(p)-1].Off = digitGap
	}
	p[len(p)-1].Off = codeGap
	return p
}

// PatternOf returns what a light shows after the event, and false if it goes on
// with what it shows.
func PatternOf(e Event) (Pattern, bool) {
	switch e.Kind {
	case KindStart:
		return Working(), true
	case KindReboot:
		return WaitingForReboot(), true
	case KindEnd:
		switch {
		case e.Result != nil && !e.Result.Quiet():
			return Failure(*e.Result), true
		case e.Waiting:
			return WaitingForReboot(), true
		}
		return Safe(), true
	default:
		return nil, false
	}
}

// LED is a [Sink] that shows patterns with a light of the kernel's leds class.
type LED struct {
	dir    string // of the light, in sysfs
	after  func(time.Duration) <-chan time.Time
	bright string // its largest brightness, in decimal
	before ledState
	lock   *os.File

	change  chan Pattern
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
	err     error // of the light; read after stopped
}

// ledState is what a light did before.
type ledState struct{ trigger, brightness, delayOn, delayOff string }

const (
	maxLEDName = 64
	maxLEDAttr = 4 << 10 // bytes of an attribute: a trigger's list is a page
	// triggerNone is the trigger that leaves a light to whoever writes its
	// brightness (source: Linux, Documentation/leds/leds-class.rst).
	triggerNone = "none"
)

// OpenLED takes the light of that name, below sysfs, for as long as it is open.
// Another program of ours that has it makes it wait, until ctx is done. after is
// time.After. Close gives the light back as it was; a program that is killed
// leaves it as it is at that moment.
func OpenLED(ctx context.Context, sysfs, name string, after func(time.Duration) <-chan time.Time) (*LED, error) {
	l := &LED{
		dir: filepath.Join(sysfs, "class/leds", name), after: after,
		change: make(chan Pattern, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := l.open(ctx, name); err != nil {
		if l.lock != nil {
			_ = l.lock.Close() // nothing was written
		}
		return nil, fmt.Errorf("led %.64q: %w", name, err)
	}
	go l.run()
	return l, nil
}

func (l *LED) open(ctx context.Context, name string) error {
	if name == "" || len(name) > maxLEDName || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
		return errors.New("not a name of a light")
	}
	var err error
	if l.bright, err = l.read("max_brightness"); err != nil {
		return err
	}
	if n, err := strconv.Atoi(l.bright); err != nil || n < 1 {
		return fmt.Errorf("max_brightness %.16q is no number above 0", l.bright)
	}
	if l.lock, err = lockFile(ctx, filepath.Join(l.dir, "brightness"), l.after); err != nil {
		return err
	}
	if l.before, err = l.state(); err != nil {
		return err
	}
	return l.write("trigger", triggerNone)
}

// state reads what must be put back.
func (l *LED) state() (s ledState, err error) {
	triggers, err := l.read("trigger")
	if err != nil {
		return s, err
	}
	s.trigger = triggerNone
	if _, rest, ok := strings.Cut(triggers, "["); ok {
		s.trigger, _, _ = strings.Cut(rest, "]")
	}
	if s.brightness, err = l.read("brightness"); err != nil {
		return s, err
	}
	if s.trigger == "timer" { // its times are lost with it
		s.delayOn, err = l.read("delay_on")
		if err == nil {
			s.delayOff, err = l.read("delay_off")
		}
	}
	return s, err
}

func (l *LED) read(attr string) (string, error) {
	f, err := os.Open(filepath.Join(l.dir, attr))
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLEDAttr))
	return strings.TrimSpace(string(b)), err
}

// write changes an attribute. It never makes a file: sysfs has none to make.
func (l *LED) write(attr, value string) error {
	f, err := os.OpenFile(filepath.Join(l.dir, attr), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Send changes the pattern, if the event calls for that.
func (l *LED) Send(_ context.Context, e Event) error {
	p, ok := PatternOf(e)
	if !ok {
		return nil
	}
	select {
	case l.change <- p:
	case <-l.stopped: // it failed; Close tells
	}
	return nil
}

// run shows patterns until it is told to stop.
func (l *LED) run() {
	defer close(l.stopped)
	var pattern Pattern // none: dark
	for i := 0; ; i++ {
		lit, length := pattern.at(i)
		if l.err = l.light(lit); l.err != nil {
			return
		}
		var wait <-chan time.Time // never, for what is steady
		if length > 0 {
			wait = l.after(length)
		}
		select {
		case <-wait:
		case pattern = <-l.change:
			i = -1 // from its start
		case <-l.stop:
			return
		}
	}
}

// at is the i-th part of the pattern, and how long it takes; 0 is for ever.
func (p Pattern) at(i int) (lit bool, length time.Duration) {
	if len(p) == 0 {
		return false, 0
	}
	f := p[i/2%len(p)]
	switch {
	case f.Off == 0:
		return true, 0
	case i%2 == 0:
		return true, f.On
	default:
		return false, f.Off
	}
}

func (l *LED) light(on bool) error {
	if on {
		return l.write("brightness", l.bright)
	}
	return l.write("brightness", "0")
}

// Close stops the pattern and gives the light back.
func (l *LED) Close() error {
	l.once.Do(func() { close(l.stop) })
	<-l.stopped
	// Brightness 0 turns a trigger off, so that it comes first.
	err := l.err
	if l.before.trigger == triggerNone {
		err = errors.Join(err, l.write("brightness", l.before.brightness))
	} else {
		err = errors.Join(err, l.light(false), l.write("trigger", l.before.trigger))
	}
	if l.before.delayOn != "" {
		err = errors.Join(err, l.write("delay_on", l.before.delayOn), l.write("delay_off", l.before.delayOff))
	}
	if err = errors.Join(err, l.lock.Close()); err != nil {
		return fmt.Errorf("led %s: %w", filepath.Base(l.dir), err)
	}
	return nil
}
