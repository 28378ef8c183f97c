package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/usb-updater/usb-updater/test/medium"
)

// fault is a part of the disk that gives I/O errors for a while.
type fault struct {
	where string // "environment", "data", "slot", "flush"
	reads bool   // they fail, too
	after time.Duration
	lasts time.Duration
}

func (f fault) String() string {
	what := "writes"
	if f.reads {
		what = "reads and writes"
	}
	return fmt.Sprintf("%s of %s fail for %.1f s", what, f.where, f.lasts.Seconds())
}

// hits returns which requests fail. target is the slot that is written.
func (f fault) hits(lay layout, target int) func(medium.Request) bool {
	return func(r medium.Request) bool {
		if !r.Write && !f.reads {
			return false
		}
		if r.Write && r.Length == 0 {
			return f.where == "flush"
		}
		switch f.where {
		case "environment":
			return lay.inEnv(r.Off)
		case "data":
			return lay.data.has(r.Off)
		case "slot":
			return lay.slots[target].has(r.Off)
		}
		return false
	}
}

// places take turns.
var places = []string{"environment", "data", "slot", "flush"}

// faultAll makes the disk fail at random moments of an update, then cuts the
// power and lets the device start with a disk that is well again.
func (s *campaign) faultAll(ctx context.Context) error {
	s.from = s.name()
	if err := s.first(ctx); err != nil {
		return err
	}
	for n := range s.faults {
		if s.late() {
			break
		}
		if err := s.faultOnce(ctx, n); err != nil {
			return fmt.Errorf("fault %d: %w", n, err)
		}
	}
	return nil
}

func (s *campaign) faultOnce(ctx context.Context, n int) error {
	rng := rand.New(rand.NewPCG(s.seed, 2<<32+uint64(n))) //nolint:gosec // repeatable on purpose
	before := s.main
	end := before.trace.Len()
	image, err := before.trace.At(end, medium.Kept, nil)
	if err != nil {
		return err
	}
	own := before.ownAt(s.lab.lay, end)
	s.from, s.to = s.healthyOf(s.to, s.from), s.healthyName()
	if err := s.lab.forget(s.from); err != nil {
		return err
	}
	files, err := s.lab.make(ctx, s.to)
	if err != nil {
		return err
	}
	h, err := s.lab.powerOn(ctx, image, own, []string{s.from, s.to})
	if err != nil {
		return err
	}
	f := fault{
		where: places[n%len(places)], reads: rng.IntN(3) == 0,
		after: time.Duration(rng.Int64N(int64(s.took))), lasts: time.Duration(rng.Int64N(int64(s.took))),
	}
	r := result{Kind: "fault", Number: n, From: s.from, To: s.to, Fault: f.String()}
	err = s.disturb(ctx, h, files.stick, f)
	l := h.life
	if err = errors.Join(err, h.cut()); err != nil {
		return err
	}
	return s.afterFault(ctx, l, rng, r)
}

// disturb plugs the stick in and lets the disk fail, until the update is over or
// has rebooted.
func (s *campaign) disturb(ctx context.Context, h *host, stick string, f fault) error {
	if _, err := h.settle(ctx); err != nil {
		return err
	}
	if err := h.plug("stick", stick); err != nil {
		return err
	}
	target := 1 - h.life.running(h.life.plug)
	rebooted, err := h.expectFor(ctx, f.after)
	if err != nil || rebooted {
		return err
	}
	h.server.Fail(f.hits(s.lab.lay, target))
	rebooted, err = h.expectFor(ctx, f.lasts)
	h.server.Fail(nil)
	if err != nil || rebooted {
		return err
	}
	_, err = h.expectFor(ctx, s.took) // it ends, or comes to its reboot, or neither
	return err
}

// afterFault cuts the power and starts the device again.
func (s *campaign) afterFault(ctx context.Context, l *life, rng *rand.Rand, r result) error {
	loss := medium.Losses[rng.IntN(len(medium.Losses))]
	index := l.trace.Len()
	image, err := l.trace.At(index, loss, rng)
	if err != nil {
		return err
	}
	images, err := s.lab.releases(ctx, s.from, s.to)
	if err != nil {
		return err
	}
	own := l.ownAt(s.lab.lay, index)
	expected, err := s.predict(ctx, image, images, own)
	if err != nil {
		return err
	}
	r.Index, r.Loss, r.Violations = index, loss, expected.Violations
	h, err := s.lab.powerOn(ctx, image, own, []string{s.from, s.to})
	if err != nil {
		return err
	}
	err = s.start(ctx, h, expected, &r)
	r.Seconds = time.Since(h.began).Seconds()
	if err = errors.Join(err, h.cut()); err != nil {
		return err
	}
	if !r.Next { // the next fault begins where this one has ended
		s.main = h.life
		s.from, s.to = r.Runs, r.Runs
	}
	s.outcomes[r.Outcome]++
	s.faulted++
	if err := s.add(r); err != nil {
		return err
	}
	return s.afterStart(ctx, h.life, r)
}
