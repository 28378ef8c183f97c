package report

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// gate is a sink that holds events up until it is opened.
type gate struct {
	open   chan struct{}
	mu     sync.Mutex
	heard  []string
	closed bool
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) Send(ctx context.Context, e Event) error {
	select {
	case <-g.open:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.heard = append(g.heard, fmt.Sprintf("%s %s%d", e.Kind, e.Stage, e.Percent))
	return nil
}

func (g *gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return nil
}

// clock is a time that goes on by a second with each look.
func clock() func() time.Time {
	t := time.Unix(0, 0)
	return func() time.Time { t = t.Add(time.Second); return t }
}

func noWarning(t *testing.T) func(string, error) {
	t.Helper()
	return func(name string, err error) { t.Errorf("warning: %s: %v", name, err) }
}

// TestSinksKeepTheEnd: a sink that hangs holds nobody up, and when it goes on it
// hears of the end, whatever came before.
func TestSinksKeepTheEnd(t *testing.T) {
	slow, quick := newGate(), newGate()
	close(quick.open)
	s := NewSinks(clock(), noWarning(t), Named{"slow", slow}, Named{"quick", quick})
	s.Send(Event{Kind: KindStart})
	for i := range 10 * maxQueue {
		s.Send(Event{Kind: KindProgress, Percent: i})
	}
	for i := range 10 * maxQueue {
		s.Send(Event{Kind: KindStage, Stage: fmt.Sprint("s", i)})
	}
	s.Send(Event{Kind: KindEnd})
	for i := range 10 * maxQueue {
		s.Send(Event{Kind: KindStage, Stage: fmt.Sprint("t", i)})
	}
	close(slow.open)
	s.Drain(t.Context())
	s.Close(t.Context())
	if n := len(slow.heard); n > maxQueue+1 || !strings.Contains(strings.Join(slow.heard, ","), "end 0") {
		t.Errorf("slow sink heard %d events, want at most %d with the end among them: %q", n, maxQueue+1, slow.heard)
	}
	if !slow.closed || !quick.closed {
		t.Errorf("closed = %v, %v, want true, true", slow.closed, quick.closed)
	}
}

func TestInsert(t *testing.T) {
	full := func(kind Kind) []Event {
		events := make([]Event, maxQueue)
		for i := range events {
			events[i] = Event{Kind: kind, Percent: i}
		}
		return events
	}
	mixed := append([]Event{{Kind: KindEnd, Percent: 100}}, full(KindStage)[1:]...)
	tests := []struct {
		name        string
		events      []Event
		in          Event
		first, last Event
		length      int
	}{
		{"empty", nil, Event{Kind: KindStart}, Event{Kind: KindStart}, Event{Kind: KindStart}, 1},
		{"progress in place of progress", []Event{{Kind: KindProgress, Percent: 1}}, Event{Kind: KindProgress, Percent: 2}, Event{Kind: KindProgress, Percent: 2}, Event{Kind: KindProgress, Percent: 2}, 1},
		{"full of stages", full(KindStage), Event{Kind: KindEnd}, Event{Kind: KindStage, Percent: 1}, Event{Kind: KindEnd}, maxQueue},
		{"an end outlives stages", mixed, Event{Kind: KindStage, Percent: 99}, Event{Kind: KindEnd, Percent: 100}, Event{Kind: KindStage, Percent: 99}, maxQueue},
		{"full of ends, a stage", full(KindEnd), Event{Kind: KindStage}, Event{Kind: KindEnd}, Event{Kind: KindEnd, Percent: maxQueue - 1}, maxQueue},
		{"full of ends, an end", full(KindEnd), Event{Kind: KindEnd, Percent: 99}, Event{Kind: KindEnd, Percent: 1}, Event{Kind: KindEnd, Percent: 99}, maxQueue},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := insert(tt.events, tt.in)
			if len(got) != tt.length {
				t.Fatalf("insert: %d events, want %d", len(got), tt.length)
			}
			if got[0] != tt.first || got[len(got)-1] != tt.last {
				t.Errorf("insert: first %+v, last %+v, want %+v, %+v", got[0], got[len(got)-1], tt.first, tt.last)
			}
		})
	}
}

func TestProgressRate(t *testing.T) {
	g := newGate()
	close(g.open)
	now := time.Unix(0, 0)
	s := NewSinks(func() time.Time { return now }, noWarning(t), Named{"gate", g})
	for i := range 100 { // ten seconds
		now = now.Add(100 * time.Millisecond)
		s.Send(Event{Kind: KindProgress, Percent: i})
		s.Drain(t.Context())
	}
	s.Close(t.Context())
	if n := len(g.heard); n < 30 || n > 40 {
		t.Errorf("%d events of progress in ten seconds, want about 34, at most 40", n)
	}
}

type broken struct{ sends int }

func (b *broken) Send(context.Context, Event) error {
	b.sends++
	if b.sends == 2 {
		panic("a bug")
	}
	return errors.New("no")
}
func (*broken) Close() error { return errors.New("no") }

// TestSinksSurviveBrokenOnes: errors and bugs of a sink are told once.
func TestSinksSurviveBrokenOnes(t *testing.T) {
	var warnings []string
	b := &broken{}
	s := NewSinks(clock(), func(name string, err error) { warnings = append(warnings, name+": "+err.Error()) }, Named{"broken", b})
	for range 3 {
		s.Send(Event{Kind: KindStage})
		s.Drain(t.Context())
	}
	s.Close(t.Context())
	if diff := cmp.Diff([]string{"broken: no"}, warnings); diff != "" || b.sends != 3 {
		t.Errorf("%d sends, warnings (-want +got):\n%s", b.sends, diff)
	}
}

// TestCloseLeavesHangingSinks: the end of a run does not wait for one.
func TestCloseLeavesHangingSinks(t *testing.T) {
	g := newGate()
	s := NewSinks(clock(), noWarning(t), Named{"hung", g})
	s.Send(Event{Kind: KindEnd})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Drain(ctx)
	s.Close(ctx)
	<-s.queues[0].done
	if len(g.heard) != 0 || !g.closed {
		t.Errorf("the sink heard %q, closed = %v, want nothing, true", g.heard, g.closed)
	}
}

func TestLazy(t *testing.T) {
	opened := 0
	g := newGate()
	close(g.open)
	l := Lazy(func(context.Context) (Sink, error) { opened++; return g, nil })
	if err := l.Close(); err != nil || g.closed {
		t.Errorf("Close before the first event: %v, closed = %v", err, g.closed)
	}
	for range 2 {
		if err := l.Send(t.Context(), Event{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil || opened != 1 || !g.closed {
		t.Errorf("opened %d times, closed = %v, %v, want once, true", opened, g.closed, err)
	}
	bad := Lazy(func(context.Context) (Sink, error) { return nil, errors.New("no") })
	if err := bad.Send(t.Context(), Event{}); err == nil {
		t.Error("Send hides the error of open")
	}
	if err := errors.Join(bad.Send(t.Context(), Event{}), bad.Close()); err != nil {
		t.Errorf("after a failed open: %v, want silence", err)
	}
}
