package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// idle waits in the device until no run is at work and none is to come.
const idle = "while systemctl is-active -q 'usb-updater@*' || systemctl list-jobs | grep -q usb-updater@; do sleep 0.1; done"

// pullAll pulls sticks out at random moments from the insertion to the reboot, on
// one device that stays on.
func (s *campaign) pullAll(ctx context.Context) error {
	h, err := s.lab.powerOn(ctx, s.lab.disk.Clone(), [2]blockSet{}, nil)
	if err != nil {
		return err
	}
	s.from = s.name()
	st, err := h.settle(ctx)
	// The first update is not disturbed: it says how long one takes.
	if err == nil {
		s.to = s.name()
		var wrong []string
		if wrong, err = s.goOn(ctx, h); len(wrong) > 0 {
			err = fmt.Errorf("the first update: %q", wrong)
		}
		st.Artifact = s.to
		err = errors.Join(err, h.machine.Pull(h.stick()))
	}
	for n := 0; n < s.pulls && err == nil; n++ {
		if s.late() {
			break
		}
		if st, err = s.pull(ctx, h, n, st.Artifact); err != nil {
			err = fmt.Errorf("pull %d: %w", n, err)
			break
		}
		err = h.yield()
	}
	return errors.Join(err, h.cut())
}

// untilReboot is the time from the insertion to the trial boot, and how many
// requests came to the disk in it.
func (h *host) untilReboot() (took time.Duration, requests int) {
	for _, b := range h.life.boots {
		if b.trial {
			return b.at.Sub(h.plugged), b.index - h.life.plug
		}
	}
	return time.Second, 1 // never: there was none, and goOn has said so
}

// pull plugs a stick in, pulls it out at a random moment, and checks the device.
// Each few times another stick follows, which must be installed.
func (s *campaign) pull(ctx context.Context, h *host, n int, running string) (status, error) {
	rng := rand.New(rand.NewPCG(s.seed, 1<<32+uint64(n))) //nolint:gosec // repeatable on purpose
	files, err := s.freshStick(ctx, h, running, n)
	if err != nil {
		return status{}, err
	}
	began, id := time.Now(), fmt.Sprintf("pulled%d", n)
	if err := h.plug(id, files.stick); err != nil {
		return status{}, err
	}
	rebooted, err := h.expectRequests(ctx, rng.IntN(s.requests), s.took)
	if err != nil {
		return status{}, err
	}
	index := h.life.trace.Len()
	if err := h.machine.Pull(id); err != nil {
		return status{}, err
	}
	var st status
	ok := false
	if !rebooted {
		st, ok, err = h.ask(ctx, idle)
	}
	if err == nil && !ok {
		st, err = h.settle(ctx)
	}
	if err != nil {
		return st, err
	}
	r := result{Kind: "pull", Number: n, From: running, To: s.to, Index: index, Boots: len(h.life.boots) - 1, Runs: st.Artifact, Outcome: "old", Seconds: time.Since(began).Seconds()}
	marks, err := s.check.stages(h.life)
	if err != nil {
		return st, err
	}
	r.Stage = stageAt(marks, index)
	switch st.Artifact {
	case running:
	case s.healthyOf(s.to, running):
		r.Outcome = "new"
		if _, n := h.untilReboot(); n < s.requests { // the first update has more to write
			s.requests = max(n, 1)
		}
	default:
		r.Violations = append(r.Violations, fmt.Sprintf("%s runs", st.Artifact))
	}
	if st.Boot.Phase != "steady" || st.Pending != "" || st.Boot.Next != st.Slot {
		r.Violations = append(r.Violations, fmt.Sprintf("at rest with %+v", st))
	}
	if err := s.judge(ctx, h.life, n, 1); err != nil {
		return st, err
	}
	if n%s.share == s.share-1 {
		if st, err = s.afterPull(ctx, h, st, &r); err != nil {
			return st, err
		}
	}
	s.stages[string(r.Stage)]++
	s.outcomes[r.Outcome]++
	s.pulled++
	return st, s.add(r)
}

// freshStick begins a new life in the running device and returns a stick for it.
// Two releases take turns, so that what the last pull left in the slot is of
// another release.
func (s *campaign) freshStick(ctx context.Context, h *host, running string, n int) (artifactFiles, error) {
	if n == 0 || running == s.to || len(s.pair) == 0 {
		s.pair = []string{s.healthyName(), s.healthyName()}
		if err := s.lab.forget(running, s.pair[0], s.pair[1]); err != nil {
			return artifactFiles{}, err
		}
	}
	s.to = s.pair[n%2]
	now := boot{slot: h.life.boots[len(h.life.boots)-1].slot}
	own := h.life.ownAt(s.lab.lay, h.life.trace.Len())
	h.life = &life{trace: h.server.NewTrace(), own: own, boots: []boot{now}, names: []string{running, s.pair[0], s.pair[1]}}
	return s.lab.make(ctx, s.to)
}

func (s *campaign) healthyName() string {
	for {
		if name := s.name(); s.healthyOf(name, "") != "" {
			return name
		}
	}
}

// afterPull plugs in a stick that stays.
func (s *campaign) afterPull(ctx context.Context, h *host, st status, r *result) (status, error) {
	running := st.Artifact
	s.pair = nil
	files, err := s.freshStick(ctx, h, running, 0)
	if err != nil {
		return st, err
	}
	if st, err = h.update(ctx, files.stick); err != nil {
		return st, err
	}
	if r.Next = st.Artifact == s.to; !r.Next {
		r.Violations = append(r.Violations, fmt.Sprintf("the next stick: %+v", st))
	}
	err = h.machine.Pull(h.stick())
	return st, errors.Join(err, s.judge(ctx, h.life, r.Number, 1))
}

// expectRequests waits until so many requests have come to the disk since the
// stick was plugged in: its progress is that of the device, however slow the
// emulation is. It ends with a reboot, and after the time limit.
func (h *host) expectRequests(ctx context.Context, n int, limit time.Duration) (rebooted bool, err error) {
	const step = 20 * time.Millisecond
	for waited := time.Duration(0); waited < limit; waited += step {
		if h.life.trace.Len()-h.life.plug >= n {
			return false, nil
		}
		if rebooted, err := h.expectFor(ctx, step); rebooted || err != nil {
			return rebooted, err
		}
	}
	return false, nil
}

// expectFor waits for a reboot, but not longer than that.
func (h *host) expectFor(ctx context.Context, wait time.Duration) (rebooted bool, err error) {
	short, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if _, err := h.expect(short, `(never)`); err == nil {
		return true, nil
	} else if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return false, err
	}
	return false, nil
}
