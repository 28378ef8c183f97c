package report

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// maxQueue is how many events wait for a sink.
	maxQueue = 32
	// ProgressEvery is the least time between two events of progress: more than
	// four a second tell nobody more.
	ProgressEvery = 250 * time.Millisecond
)

// Sink is a place that hears of events. Both methods are called by one
// goroutine, which nothing waits for: a sink may take its time.
type Sink interface {
	// Send tells the event. An error is told once and ends nothing. ctx is done
	// when nobody waits for the sink any longer.
	Send(ctx context.Context, e Event) error
	// Close leaves the place as it was found. It is called once, after the last
	// Send.
	Close() error
}

// Sinks passes events on to several sinks. None of its methods can fail, and
// only Drain and Close wait: telling must not hold up an update.
//
// Each sink has a queue of its own. A full one loses its oldest progress, then
// its oldest event that is no end; an end is lost only to as many later ends as
// the queue holds.
type Sinks struct {
	now    func() time.Time
	mu     sync.Mutex // guards told, and orders Send
	told   time.Time  // last progress
	queues []*queue
	cancel context.CancelFunc
}

// Named is a sink with the name that warnings give it.
type Named struct {
	Name string
	Sink Sink
}

// NewSinks starts the sinks. warn hears of the first error of each, from a
// goroutine of that sink. The caller closes the result.
func NewSinks(now func() time.Time, warn func(name string, err error), sinks ...Named) *Sinks {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sinks{now: now, cancel: cancel}
	for _, n := range sinks {
		q := newQueue(n.Sink, func(err error) { warn(n.Name, err) })
		s.queues = append(s.queues, q)
		go q.run(ctx)
	}
	return s
}

// Send queues the event for all sinks. It never waits. Progress that comes too
// soon after the one before is dropped.
func (s *Sinks) Send(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Kind == KindProgress {
		now := s.now()
		if !s.told.IsZero() && now.Sub(s.told) < ProgressEvery {
			return
		}
		s.told = now
	}
	e = e.Bounded()
	for _, q := range s.queues {
		q.put(e)
	}
}

// Drain waits until every sink has heard of all events, or ctx is done.
func (s *Sinks) Drain(ctx context.Context) {
	for _, q := range s.queues {
		q.drain(ctx)
	}
}

// Close closes the sinks. What they have not heard of when ctx is done is
// lost, and a sink that hangs then is left behind.
func (s *Sinks) Close(ctx context.Context) {
	s.Drain(ctx)
	s.cancel()
	for _, q := range s.queues {
		select {
		case <-q.done:
		case <-ctx.Done():
			// It may be a moment from its end: what it does must not be cut
			// off only because another sink was slow.
			select {
			case <-q.done:
			case <-time.After(closeGrace):
			}
		}
	}
}

// closeGrace is how long a sink may take to close when there is no time left.
const closeGrace = 100 * time.Millisecond

// queue is what waits for one sink.
type queue struct {
	sink Sink
	warn func(error)

	mu      sync.Mutex
	events  []Event
	busy    bool            // the sink has an event in hand
	waiting []chan struct{} // closed when there is nothing left to tell
	wake    chan struct{}   // holds one token if something happened
	done    chan struct{}   // closed at the end of run
	warned  bool
}

func newQueue(sink Sink, warn func(error)) *queue {
	return &queue{sink: sink, warn: warn, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// put adds an event, in place of a less important one if there is no room.
func (q *queue) put(e Event) {
	q.mu.Lock()
	q.events = insert(q.events, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// insert adds e to events, which never hold more than maxQueue.
func insert(events []Event, e Event) []Event {
	isKind := func(k Kind) func(Event) bool { return func(o Event) bool { return o.Kind == k } }
	if e.Kind == KindProgress { // only the latest is of interest
		events = slices.DeleteFunc(events, isKind(KindProgress))
	}
	if len(events) >= maxQueue {
		i := slices.IndexFunc(events, isKind(KindProgress))
		if i < 0 {
			i = slices.IndexFunc(events, func(o Event) bool { return o.Kind != KindEnd })
		}
		switch {
		case i < 0 && e.Kind != KindEnd:
			return events
		case i < 0:
			i = 0
		}
		events = slices.Delete(events, i, i+1)
	}
	return append(events, e)
}

func (q *queue) run(ctx context.Context) {
	defer close(q.done)
	defer q.guard(q.sink.Close)
	for {
		select {
		case <-q.wake:
		case <-ctx.Done():
		}
		for ctx.Err() == nil {
			e, ok := q.take()
			if !ok {
				break
			}
			q.guard(func() error { return q.sink.Send(ctx, e) })
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// take returns the next event. Without one, it tells those who wait for that.
func (q *queue) take() (Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) == 0 {
		q.busy = false
		for _, c := range q.waiting {
			close(c)
		}
		q.waiting = nil
		return Event{}, false
	}
	e := q.events[0]
	q.events = slices.Delete(q.events, 0, 1)
	q.busy = true
	return e, true
}

func (q *queue) drain(ctx context.Context) {
	q.mu.Lock()
	if len(q.events) == 0 && !q.busy {
		q.mu.Unlock()
		return
	}
	idle := make(chan struct{})
	q.waiting = append(q.waiting, idle)
	q.mu.Unlock()
	select {
	case <-idle:
	case <-q.done:
	case <-ctx.Done():
	}
}

// guard calls f and tells its first error. A bug in a sink must not end an
// update half way.
func (q *queue) guard(f func() error) {
	defer func() {
		if r := recover(); r != nil {
			q.failed(fmt.Errorf("internal error: %v", r))
		}
	}()
	if err := f(); err != nil && !errors.Is(err, context.Canceled) {
		q.failed(err)
	}
}

func (q *queue) failed(err error) {
	if !q.warned {
		q.warned = true
		q.warn(err)
	}
}

// Lazy returns a sink that open opens when there is something to tell, so that
// what open waits for holds nothing up. If it fails, the sink is silent from
// then on.
func Lazy(open func(ctx context.Context) (Sink, error)) Sink { return &lazySink{open: open} }

type lazySink struct {
	open   func(ctx context.Context) (Sink, error)
	opened Sink // nil: not yet, or it failed
	tried  bool
}

func (l *lazySink) Send(ctx context.Context, e Event) error {
	if !l.tried {
		l.tried = true
		sink, err := l.open(ctx)
		if err != nil {
			return err
		}
		l.opened = sink
	}
	if l.opened == nil {
		return nil
	}
	return l.opened.Send(ctx, e)
}

func (l *lazySink) Close() error {
	if l.opened == nil {
		return nil
	}
	return l.opened.Close()
}
