package report

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// light makes a directory that stands in for sysfs, with one light in it.
func light(t *testing.T, attrs map[string]string) (sysfs, dir string) {
	t.Helper()
	sysfs = t.TempDir()
	dir = filepath.Join(sysfs, "class/leds/status")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, value := range attrs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return sysfs, dir
}

func attr(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// hands is a clock that a test turns.
type hands struct {
	asked chan time.Duration
	tick  chan time.Time
}

func newHands() hands { return hands{make(chan time.Duration), make(chan time.Time)} }

func (h hands) after(d time.Duration) <-chan time.Time { h.asked <- d; return h.tick }

// waits sends the event and returns the first n times that the light waits.
func (h hands) waits(t *testing.T, l *LED, e Event, n int) []time.Duration {
	t.Helper()
	if err := l.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	var got []time.Duration
	for i := range n {
		got = append(got, <-h.asked)
		if i < n-1 {
			h.tick <- time.Time{}
		}
	}
	return got
}

func TestLEDPatterns(t *testing.T) {
	sysfs, dir := light(t, map[string]string{"trigger": "none [mmc0] timer", "brightness": "1", "max_brightness": "255"})
	h := newHands()
	l, err := OpenLED(t.Context(), sysfs, "status", h.after)
	if err != nil {
		t.Fatal(err)
	}
	if got := attr(t, dir, "trigger"); got != "none" {
		t.Errorf("trigger = %q, want none", got)
	}
	const f, gap = flash, digitGap
	tests := []struct {
		name string
		in   Event
		want []time.Duration
	}{
		{"working", Event{Kind: KindStart}, []time.Duration{beat, beat, beat}},
		{"a stage changes nothing", Event{Kind: KindStage}, nil},
		{"failed, 3-2", Event{Kind: KindEnd, Result: &Canceled}, []time.Duration{f, f, f, f, f, gap, f, f, f, codeGap, f}},
		{"failed, 4-0", Event{Kind: KindEnd, Result: &SlotFailed}, []time.Duration{f, f, f, f, f, f, f, gap, longFlash, codeGap, f}},
		{"waiting", Event{Kind: KindEnd, Result: &OK, Waiting: true}, []time.Duration{blip, 2 * blip, blip, 2*time.Second - 4*blip, blip}},
	}
	for _, tt := range tests {
		if tt.want == nil {
			if _, ok := PatternOf(tt.in); ok {
				t.Errorf("%s: PatternOf says it does", tt.name)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, h.waits(t, l, tt.in, len(tt.want))); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := attr(t, dir, "trigger"); got != "mmc0" {
		t.Errorf("trigger after Close = %q, want mmc0", got)
	}
}

// TestLEDLight looks at the light itself.
func TestLEDLight(t *testing.T) {
	sysfs, dir := light(t, map[string]string{"trigger": "[none] timer", "brightness": "7", "max_brightness": "200"})
	h := newHands()
	l, err := OpenLED(t.Context(), sysfs, "status", h.after)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Send(t.Context(), Event{Kind: KindStart}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 4 {
		<-h.asked // the light is as it is to be
		got = append(got, attr(t, dir, "brightness"))
		h.tick <- time.Time{}
	}
	if diff := cmp.Diff([]string{"200", "0", "200", "0"}, got); diff != "" {
		t.Errorf("brightness (-want +got):\n%s", diff)
	}
	<-h.asked
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := attr(t, dir, "brightness"); got != "7" {
		t.Errorf("brightness after Close = %q, want 7", got)
	}
}

func TestLEDSteadyAndTimer(t *testing.T) {
	sysfs, dir := light(t, map[string]string{
		"trigger": "none [timer]", "brightness": "1", "max_brightness": "1", "delay_on": "30", "delay_off": "70",
	})
	l, err := OpenLED(t.Context(), sysfs, "status", func(time.Duration) <-chan time.Time {
		t.Error("steady light waits")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "delay_on"), nil, 0o600), // the kernel takes them away
		os.WriteFile(filepath.Join(dir, "delay_off"), nil, 0o600),
		l.Send(t.Context(), Event{Kind: KindEnd, Result: &UpToDate}),
		l.Close(),
	); err != nil {
		t.Fatal(err)
	}
	got := []string{attr(t, dir, "trigger"), attr(t, dir, "delay_on"), attr(t, dir, "delay_off")}
	if diff := cmp.Diff([]string{"timer", "30", "70"}, got); diff != "" {
		t.Errorf("after Close (-want +got):\n%s", diff)
	}
}

func TestOpenLEDRefuses(t *testing.T) {
	good := map[string]string{"trigger": "[none]", "brightness": "0", "max_brightness": "1"}
	tests := []struct {
		name, led string
		attrs     map[string]string
	}{
		{"not there", "other", good},
		{"a path", "../leds/status", good},
		{"no name", "", good},
		{"dark", "status", map[string]string{"trigger": "[none]", "brightness": "0", "max_brightness": "0"}},
		{"no trigger", "status", map[string]string{"brightness": "0", "max_brightness": "1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sysfs, _ := light(t, tt.attrs)
			if l, err := OpenLED(t.Context(), sysfs, tt.led, time.After); err == nil {
				l.Close()
				t.Errorf("OpenLED(%q) works", tt.led)
			}
		})
	}
}

// TestOpenLEDWaits: two runs must not take the light from each other.
func TestOpenLEDWaits(t *testing.T) {
	sysfs, dir := light(t, map[string]string{"trigger": "none [heartbeat]", "brightness": "0", "max_brightness": "1"})
	first, err := OpenLED(t.Context(), sysfs, "status", time.After)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := OpenLED(ctx, sysfs, "status", time.After); !errors.Is(err, context.Canceled) {
		if err == nil {
			l.Close()
		}
		t.Errorf("a second OpenLED: %v, want %v", err, context.Canceled)
	}
	h := newHands()
	done := make(chan error)
	go func() {
		l, err := OpenLED(t.Context(), sysfs, "status", h.after)
		if err == nil {
			err = l.Close()
		}
		done <- err
	}()
	<-h.asked // it waits
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	// The kernel marks the trigger that is in force.
	if err := os.WriteFile(filepath.Join(dir, "trigger"), []byte("none [heartbeat]"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.tick <- time.Time{}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := attr(t, dir, "trigger"); got != "heartbeat" {
		t.Errorf("trigger = %q, want heartbeat", got)
	}
}
