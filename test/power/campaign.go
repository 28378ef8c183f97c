package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/usb-updater/usb-updater/test/medium"
	"github.com/usb-updater/usb-updater/test/power/judge"
)

// campaign is one run of the program.
type campaign struct {
	options
	lab     *lab
	check   *checker
	results *results
	out     io.Writer
	commit  string

	main     *life // the last update, from power-on to rest
	recovery *life // the last start after a cut
	from, to string
	next     int // number of the next release

	stages, outcomes map[string]int
	broken           int // violations
	states           int // that were judged offline
	rounds, pulled   int
	faulted          int
	took             time.Duration // from the insertion to the reboot
	requests         int           // to the disk in this time
	began            time.Time
	pair             []string // releases on the sticks that are pulled out
}

func (s *campaign) run(ctx context.Context) error {
	s.stages, s.outcomes, s.next = map[string]int{}, map[string]int{}, 1
	version, _ := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output() // it is for people
	s.commit = strings.TrimSpace(string(version))
	fmt.Fprintf(s.out, "seed %d\n", s.seed)
	s.began = time.Now()
	if s.pulls > 0 {
		return s.pullAll(ctx)
	}
	if s.faults > 0 {
		return s.faultAll(ctx)
	}
	s.from = s.name()
	if err := s.first(ctx); err != nil {
		return err
	}
	for n := range s.options.rounds {
		if s.late() {
			break
		}
		if err := s.round(ctx, n); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
	}
	return nil
}

// late tells whether no more rounds are to begin.
func (s *campaign) late() bool { return s.limit > 0 && time.Since(s.began) > s.limit }

// name returns the name of the next release. Each fourth one is not healthy.
func (s *campaign) name() string {
	n := s.next
	s.next++
	return releaseName(n, n%4 != 0)
}

// first records the first update of a new device.
func (s *campaign) first(ctx context.Context) error {
	h, err := s.lab.powerOn(ctx, s.lab.disk.Clone(), [2]blockSet{}, nil)
	if err != nil {
		return err
	}
	st, err := h.settle(ctx)
	if err == nil && (st.Artifact != s.from || st.Slot != "A" || st.Boot.Phase != "steady") {
		err = fmt.Errorf("a new device says %+v", st)
	}
	if err == nil {
		s.to = s.name()
		var wrong []string
		if wrong, err = s.goOn(ctx, h); len(wrong) > 0 {
			err = fmt.Errorf("the first update: %q", wrong)
		}
	}
	if err = errors.Join(err, h.cut()); err != nil {
		return err
	}
	return s.judge(ctx, s.main, 0, s.draws)
}

// goOn makes the update to s.to on a device that is at rest, which runs s.from.
// It returns what is wrong with how it ended.
func (s *campaign) goOn(ctx context.Context, h *host) ([]string, error) {
	files, err := s.lab.make(ctx, s.to)
	if err != nil {
		return nil, err
	}
	st, err := h.update(ctx, files.stick)
	var broken judge.Violation
	switch want := s.healthyOf(s.to, s.from); {
	case errors.As(err, &broken):
		return []string{string(broken)}, nil
	case err != nil:
		return nil, err
	case st.Artifact != want || st.Pending != "" || st.Boot.Phase != "steady":
		return []string{fmt.Sprintf("after the update to %s: %+v", s.to, st)}, nil
	}
	s.took, s.requests = h.untilReboot()
	h.life.names = namesAfter(h.life.names, s.from, s.to)
	s.main, s.recovery = h.life, nil
	return nil, nil
}

// namesAfter are the releases that may be in a slot in the life of an update: its
// own two, and those of the life before it, of which the cut may have left one
// armed.
func namesAfter(before []string, from, to string) []string {
	names := []string{from, to}
	for _, name := range before[:min(2, len(before))] {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (s *campaign) healthyOf(to, from string) string {
	if strings.Contains(to, judge.Unhealthy) {
		return from
	}
	return to
}

// judge judges all moments of a life and keeps the result.
func (s *campaign) judge(ctx context.Context, l *life, number, draws int) error {
	began := time.Now()
	images, err := s.lab.releases(ctx, l.names...)
	if err != nil {
		return err
	}
	now := *l
	now.trace = l.trace.Snapshot() // the device may be on
	l = &now
	s.check.keep = ""
	if s.bug == "" {
		s.check.keep = filepath.Join(s.keep, fmt.Sprintf("violation-%d-trace-%d.disk", s.seed, number))
	}
	t, err := s.check.walk(ctx, l, images, draws, s.seed)
	if err != nil {
		return err
	}
	for _, n := range t.Violations {
		s.broken += n
	}
	s.states += t.States
	r := result{Kind: "trace", Number: number, From: l.names[0], To: l.names[1], Entries: l.trace.Len(), Trace: &t, Seconds: time.Since(began).Seconds()}
	return s.add(r)
}

func (s *campaign) add(r result) error {
	r.Seed, r.Commit, r.Bug = s.seed, s.commit, s.bug
	s.broken += len(r.Violations)
	return s.results.add(r)
}

// cutAt is a power cut.
type cutAt struct {
	life  *life
	stage stage
	index int
	loss  medium.Loss
}

// choose picks the moment of a round's power cut. Stages take turns, so that each
// is hit; each ninth cut falls into the start after the cut before it.
func (s *campaign) choose(n int, rng *rand.Rand) (cutAt, error) {
	c := cutAt{life: s.main, loss: medium.Losses[rng.IntN(len(medium.Losses))]}
	turn := n % (len(updateStages) + 1)
	if turn < len(updateStages) {
		c.stage = updateStages[turn]
	} else if c.stage = stageRecover; s.recovery != nil {
		c.life = s.recovery
	}
	marks, err := s.check.stages(c.life)
	if err != nil {
		return c, err
	}
	first, last, ok := bounds(marks, c.stage, c.life.trace.Len())
	if !ok && s.bug != "" { // it may have changed the order
		first, last, ok = 0, c.life.trace.Len(), true
	}
	if !ok {
		return c, fmt.Errorf("the update has no stage %q: %s", c.stage, describe(marks))
	}
	c.index = first + rng.IntN(last-first+1)
	return c, nil
}

// round cuts the power once, starts the device, and checks what has become of it.
func (s *campaign) round(ctx context.Context, n int) error {
	rng := rand.New(rand.NewPCG(s.seed, uint64(n))) //nolint:gosec // repeatable on purpose
	c, err := s.choose(n, rng)
	if err != nil {
		return err
	}
	image, err := c.life.trace.At(c.index, c.loss, rng)
	if err != nil {
		return err
	}
	own := c.life.ownAt(s.lab.lay, c.index)
	images, err := s.lab.releases(ctx, c.life.names...)
	if err != nil {
		return err
	}
	expected, err := s.predict(ctx, image, images, own)
	if err != nil {
		return err
	}
	r := result{Kind: "round", Number: n, From: s.from, To: s.to, Stage: c.stage, Index: c.index, Loss: c.loss, Violations: slices.Clone(expected.Violations)}
	h, err := s.lab.powerOn(ctx, image.Clone(), own, c.life.names)
	if err != nil {
		return err
	}
	err = s.start(ctx, h, expected, &r)
	r.Seconds = time.Since(h.began).Seconds()
	if err = errors.Join(err, h.cut(), ctx.Err()); err != nil {
		return err
	}
	s.stages[string(c.stage)]++
	s.outcomes[r.Outcome]++
	s.rounds++
	if len(r.Violations) > 0 {
		path := filepath.Join(s.keep, fmt.Sprintf("violation-%d-%d.disk", s.seed, n))
		if err := image.Save(path, 0, image.Size()); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "the disk as the cut left it is in %s\n", path)
	}
	if err := s.add(r); err != nil {
		return err
	}
	return s.afterStart(ctx, h.life, r)
}

// afterStart judges the trace of a start after a power cut, or of the update
// that followed it.
func (s *campaign) afterStart(ctx context.Context, l *life, r result) error {
	switch {
	case r.Next:
		return errors.Join(s.judge(ctx, l, r.Number, s.draws), s.lab.forget(l.names...))
	case r.Boots == 0:
		return nil
	}
	s.recovery = l
	return s.judge(ctx, l, r.Number, 1)
}

// predict judges one image.
func (s *campaign) predict(ctx context.Context, m *medium.Image, images []release, own [2]blockSet) (judge.Verdict, error) {
	w, err := s.check.newWatch(m, images, cloneOwn(own))
	if err != nil {
		return judge.Verdict{}, err
	}
	s.check.known = map[key]judge.Verdict{}
	return s.check.judge(ctx, w, m.Over())
}

// start waits until the device is at rest, compares it with what was expected,
// and each few rounds goes on with the next update.
func (s *campaign) start(ctx context.Context, h *host, expected judge.Verdict, r *result) error {
	st, err := h.settle(ctx)
	r.Boots = len(h.life.boots)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		r.Violations = append(r.Violations, "it does not come up: "+err.Error())
		return nil
	}
	if len(expected.Violations) == 0 && (st.Artifact != expected.Runs || st.Slot != expected.Slot) {
		r.Violations = append(r.Violations, fmt.Sprintf("%s runs in slot %s, and %s in slot %s was expected", st.Artifact, st.Slot, expected.Runs, expected.Slot))
	}
	if st.Boot.Phase != "steady" || st.Pending != "" || st.Boot.Next != st.Slot {
		r.Violations = append(r.Violations, fmt.Sprintf("at rest with %+v", st))
	}
	if r.Runs, r.Outcome = st.Artifact, "new"; st.Artifact == s.from {
		r.Outcome = "old"
	}
	if r.Number%s.share == s.share-1 && len(r.Violations) == 0 {
		from, to := s.from, s.to
		s.from, s.to = st.Artifact, s.name()
		r.Violations, err = s.goOn(ctx, h)
		if r.Next = err == nil && len(r.Violations) == 0; !r.Next {
			s.from, s.to = from, to // the last update stays the one that is cut
		}
		return err
	}
	return nil
}

// summary prints what the campaign came to.
func (s *campaign) summary() {
	fmt.Fprintf(s.out, "\nseed %d: %d power cuts with a start after them, %d sticks pulled out, %d faults; %d states judged offline; %d violations\n",
		s.seed, s.rounds, s.pulled, s.faulted, s.states, s.broken)
	for _, st := range append([]stage{stageRecover}, updateStages...) {
		fmt.Fprintf(s.out, "  cut in %-8s %4d %s\n", st, s.stages[string(st)], strings.Repeat("#", s.stages[string(st)]))
	}
	fmt.Fprintf(s.out, "  outcomes: %v\n", s.outcomes)
}

// leastHits is how often each stage must have been hit by a campaign of enough
// rounds.
const leastHits = 5

// verdict is the error of a campaign in which something was wrong.
func (s *campaign) verdict() error {
	var err error
	if s.broken > 0 {
		err = fmt.Errorf("%d violations", s.broken)
	}
	if s.rounds >= (len(updateStages)+1)*leastHits {
		for _, st := range updateStages {
			if n := s.stages[string(st)]; n < leastHits {
				err = errors.Join(err, fmt.Errorf("stage %s was hit %d times, not %d", st, n, leastHits))
			}
		}
	}
	return err
}
