package main

import (
	"cmp"
	"maps"
	"slices"
)

// result is one line of the results of test/power.
type result struct {
	Kind       string   `json:"kind"`
	Seed       uint64   `json:"seed"`
	Number     int      `json:"number"`
	Commit     string   `json:"commit"`
	Bug        string   `json:"bug"`
	Entries    int      `json:"entries"`
	Stage      string   `json:"stage"`
	Loss       string   `json:"loss"`
	Boots      int      `json:"boots"`
	Outcome    string   `json:"outcome"`
	Next       bool     `json:"next"`
	Violations []string `json:"violations"`
	Trace      *struct {
		States     int            `json:"states"`
		Unique     int            `json:"unique"`
		Moments    map[string]int `json:"moments"`
		Violations map[string]int `json:"violations"`
	} `json:"trace"`
}

// stages in the order of an update's life.
var stages = []string{"recover", "insert", "write", "record", "arm", "armed", "trial", "confirm", "close"}

// Power is what all results come to.
type Power struct {
	Rounds, Pulls, Faults Count
	Stages, PullStages    []*StageRow
	Losses                map[string]int // rounds by loss
	Boots                 map[int]int    // rounds by boots until the device was at rest
	Lives, Entries        int            // traces that were judged, and their requests
	States, Unique        int            // that were judged offline
	Violations            int            // of these states
	Bugs                  []*Bug
	Campaigns             []*Campaign
	stages                map[string]*StageRow
	pullStages            map[string]*StageRow
	bugs                  map[string]*Bug
	campaigns             map[Campaign]*Campaign
}

// Count is what came of one kind of trial.
type Count struct{ Total, Old, New, Next, Violations int }

func (c *Count) add(r result) {
	c.Total++
	switch r.Outcome {
	case "old":
		c.Old++
	case "new":
		c.New++
	}
	if r.Next {
		c.Next++
	}
	if len(r.Violations) > 0 {
		c.Violations++
	}
}

// StageRow is what came of trials in one stage.
type StageRow struct {
	Stage string
	Count
	Moments int // of the traces that were judged
}

// Bug is what a deliberate bug made visible.
type Bug struct {
	Name       string
	States     int
	Violations map[string]int
}

// Campaign is one run of the program.
type Campaign struct {
	Seed   uint64
	Commit string
	Rounds int
	Pulls  int
	Faults int
}

func newPower() *Power {
	p := &Power{
		Losses: map[string]int{}, Boots: map[int]int{}, stages: map[string]*StageRow{}, pullStages: map[string]*StageRow{},
		bugs: map[string]*Bug{}, campaigns: map[Campaign]*Campaign{},
	}
	for _, s := range stages {
		p.stages[s], p.pullStages[s] = &StageRow{Stage: s}, &StageRow{Stage: s}
		p.Stages = append(p.Stages, p.stages[s])
		if s != "recover" {
			p.PullStages = append(p.PullStages, p.pullStages[s])
		}
	}
	return p
}

func (p *Power) line(text string) error {
	r, err := decode(text)
	if err != nil {
		return err
	}
	if r.Bug != "" {
		p.bug(r)
		return nil
	}
	s := p.campaign(r)
	switch r.Kind {
	case "trace":
		p.trace(r)
	case "round":
		s.Rounds++
		p.Rounds.add(r)
		p.Losses[r.Loss]++
		p.Boots[r.Boots]++
		if row := p.stages[r.Stage]; row != nil {
			row.add(r)
		}
	case "pull":
		s.Pulls++
		p.Pulls.add(r)
		if row := p.pullStages[r.Stage]; row != nil {
			row.add(r)
		}
	case "fault":
		s.Faults++
		p.Faults.add(r)
	}
	return nil
}

func (p *Power) campaign(r result) *Campaign {
	k := Campaign{Seed: r.Seed, Commit: r.Commit}
	s := p.campaigns[k]
	if s == nil {
		s = &Campaign{Seed: r.Seed, Commit: r.Commit}
		p.campaigns[k] = s
		p.Campaigns = append(p.Campaigns, s)
	}
	return s
}

func (p *Power) trace(r result) {
	p.Lives++
	p.Entries += r.Entries
	p.States += r.Trace.States
	p.Unique += r.Trace.Unique
	for s, n := range r.Trace.Moments {
		if row := p.stages[s]; row != nil {
			row.Moments += n
		}
	}
	for _, n := range r.Trace.Violations {
		p.Violations += n
	}
}

func (p *Power) bug(r result) {
	b := p.bugs[r.Bug]
	if b == nil {
		b = &Bug{Name: r.Bug, Violations: map[string]int{}}
		p.bugs[r.Bug] = b
		p.Bugs = append(p.Bugs, b)
		slices.SortFunc(p.Bugs, func(a, b *Bug) int { return cmp.Compare(a.Name, b.Name) })
	}
	for _, v := range r.Violations {
		b.Violations[v]++
	}
	if r.Trace != nil {
		b.States += r.Trace.States
		for v, n := range r.Trace.Violations {
			b.Violations[v] += n
		}
	}
}

// Broken is how many states violate something.
func (b *Bug) Broken() int {
	n := 0
	for _, v := range b.Violations {
		n += v
	}
	return n
}

// Most is the violation that was seen most often.
func (b *Bug) Most() string {
	names := slices.Sorted(maps.Keys(b.Violations))
	if len(names) == 0 {
		return "none"
	}
	return slices.MaxFunc(names, func(x, y string) int { return cmp.Compare(b.Violations[x], b.Violations[y]) })
}
