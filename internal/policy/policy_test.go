package policy

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func artifact(name, version, digest string) Candidate {
	return Candidate{File: name + ".mender", Name: name, Version: version, Digest: digest, Size: 10, Checksum: "c" + digest, Verified: true}
}

func device() Device {
	return Device{InstalledName: "os-1.5", InstalledVersion: "1.5", InstalledDigest: "d15", InstalledChecksum: "cd15", MaxAttempts: 1, SlotSize: 100}
}

func knows(digest string, k Known) func(*Device) {
	return func(d *Device) { d.Known = map[string]Known{digest: k} }
}

func pluggedIn(and func(*Device)) func(*Device) {
	return func(d *Device) {
		d.PluggedIn = true
		and(d)
	}
}

func TestDecide(t *testing.T) {
	unsigned := artifact("os-2.0", "2.0", "d20")
	unsigned.Verified = false
	huge := artifact("os-2.0", "2.0", "d20")
	huge.Size = 101
	broken := Candidate{File: "x.mender", Err: errors.New("not an artifact")}
	repacked := artifact("os-1.5", "1.5", "other")
	repacked.Checksum = "cd15"
	renamed := artifact("os-2.0", "2.0", "d20")
	renamed.File = "copy of os-2.0.mender"

	module := artifact("app-1.0", "1.0", "m1")
	module.Module, module.Size = true, 1000
	olderModule := module
	olderModule.Replaces = "1.1"

	tests := []struct {
		name       string
		device     func(*Device)
		candidates []Candidate
		chosen     int
		rules      []Rule
	}{
		{"empty stick", nil, nil, -1, []Rule{}},
		{"one update", nil, []Candidate{artifact("os-2.0", "2.0", "d20")}, 0, []Rule{RuleChosen}},
		{"highest version wins whatever the order", nil, []Candidate{artifact("os-1.9", "1.9", "d19"), artifact("os-1.10", "1.10", "d110"), artifact("os-1.6", "1.6", "d16")}, 1, []Rule{RuleNewest, RuleChosen, RuleNewest}},
		{"release beats its candidate", nil, []Candidate{artifact("a", "2.0-rc2", "d1"), artifact("b", "2.0", "d2")}, 1, []Rule{RuleNewest, RuleChosen}},
		{"installed by digest", nil, []Candidate{artifact("os-1.5", "1.5", "d15")}, -1, []Rule{RuleInstalled}},
		{"another client installed since", nil, []Candidate{artifact("os-9", "9", "d15")}, 0, []Rule{RuleChosen}},
		{"installed beside older", nil, []Candidate{artifact("os-1.5", "1.5", "d15"), artifact("zebra", "", "dz")}, -1, []Rule{RuleInstalled, RuleNewest}},
		{"installed beside older, downgrade allowed", func(d *Device) { d.AllowDowngrade = true }, []Candidate{artifact("os-1.4", "1.4", "d14"), artifact("os-1.5", "1.5", "d15")}, -1, []Rule{RuleNewest, RuleInstalled}},
		{"installed beside newer", nil, []Candidate{artifact("os-1.5", "1.5", "d15"), artifact("os-1.6", "1.6", "d16")}, 1, []Rule{RuleInstalled, RuleChosen}},
		{"version that is the name", func(d *Device) { d.InstalledName, d.InstalledVersion = "os-1.5_INCONSISTENT", "os-1.5" }, []Candidate{artifact("os-1.4", "os-1.4", "d14")}, -1, []Rule{RuleDowngrade}},
		{"started too often", knows("d20", Known{Starts: 3}), []Candidate{artifact("os-2.0", "2.0", "d20")}, -1, []Rule{RuleFailed}},
		{"started twice", knows("d20", Known{Starts: 2}), []Candidate{artifact("os-2.0", "2.0", "d20")}, 0, []Rule{RuleChosen}},
		{"started as often as may fail", func(d *Device) { knows("d20", Known{Starts: 4})(d); d.MaxAttempts = 5 }, []Candidate{artifact("os-2.0", "2.0", "d20")}, 0, []Rule{RuleChosen}},
		{"started too often, plugged in again", pluggedIn(knows("d20", Known{Starts: 3})), []Candidate{artifact("os-2.0", "2.0", "d20")}, -1, []Rule{RuleFailed}},
		{"broke too often", knows("d20", Known{Broken: 3}), []Candidate{artifact("os-2.0", "2.0", "d20")}, -1, []Rule{RuleFailed}},
		{"broke twice", knows("d20", Known{Broken: 2}), []Candidate{artifact("os-2.0", "2.0", "d20")}, 0, []Rule{RuleChosen}},
		{"broke too often, and was copied again", pluggedIn(knows("d20", Known{Broken: 3})), []Candidate{artifact("os-2.0", "2.0", "d20")}, 0, []Rule{RuleChosen}},
		{"replaced by one of its version", knows("b15", Known{Replaced: 1}), []Candidate{artifact("build-1.5", "1.5", "b15")}, -1, []Rule{RuleReplaced}},
		{"replaced, not comparable", knows("dz", Known{Replaced: 1}), []Candidate{artifact("zebra", "", "dz")}, -1, []Rule{RuleReplaced}},
		{"replaced by a newer one, downgrade allowed", func(d *Device) { knows("d14", Known{Replaced: 1})(d); d.AllowDowngrade = true }, []Candidate{artifact("os-1.4", "1.4", "d14")}, -1, []Rule{RuleReplaced}},
		{"replaced by a newer one", knows("d14", Known{Replaced: 1}), []Candidate{artifact("os-1.4", "1.4", "d14")}, -1, []Rule{RuleDowngrade}},
		{"replaced by an older one", knows("d20", Known{Replaced: 1}), []Candidate{artifact("os-2.0", "2.0", "d20")}, 0, []Rule{RuleChosen}},
		{"replaced, plugged in again", pluggedIn(knows("b15", Known{Replaced: 3})), []Candidate{artifact("build-1.5", "1.5", "b15")}, 0, []Rule{RuleChosen}},
		{"older, plugged in again", pluggedIn(knows("d14", Known{Replaced: 1})), []Candidate{artifact("os-1.4", "1.4", "d14")}, -1, []Rule{RuleDowngrade}},
		{"replaced too often, plugged in again", pluggedIn(knows("b15", Known{Replaced: 4})), []Candidate{artifact("build-1.5", "1.5", "b15")}, -1, []Rule{RuleReplaced}},
		{"replaced too often, newer", knows("d20", Known{Replaced: 4}), []Candidate{artifact("os-2.0", "2.0", "d20")}, -1, []Rule{RuleReplaced}},
		{"replaced beside one that is no newer", knows("dz", Known{Replaced: 1}), []Candidate{artifact("yak", "", "dy"), artifact("zebra", "", "dz")}, -1, []Rule{RuleNewest, RuleReplaced}},
		{"replaced beside a newer one", knows("b15", Known{Replaced: 1}), []Candidate{artifact("os-1.6", "1.6", "d16"), artifact("build-1.5", "1.5", "b15")}, 0, []Rule{RuleChosen, RuleReplaced}},
		{"replaced, for an update module", knows("m1", Known{Replaced: 1}), []Candidate{module}, -1, []Rule{RuleReplaced}},
		{"what runs was replaced once", knows("d15", Known{Replaced: 9}), []Candidate{artifact("os-1.5", "1.5", "d15")}, -1, []Rule{RuleInstalled}},
		{"installed by name and payload", nil, []Candidate{repacked}, -1, []Rule{RuleInstalled}},
		{"for an update module", nil, []Candidate{module}, 0, []Rule{RuleChosen}},
		{"for an update module, older", nil, []Candidate{olderModule}, -1, []Rule{RuleDowngrade}},
		{"installed before an update module was", func(d *Device) { d.InstalledName, d.InstalledDigest = "app-1.0", "m1" }, []Candidate{artifact("os-1.5", "1.5", "d15"), module}, -1, []Rule{RuleInstalled, RuleInstalled}},
		{"older", nil, []Candidate{artifact("os-1.4", "1.4", "d14")}, -1, []Rule{RuleDowngrade}},
		{"older by the name alone", func(d *Device) { d.InstalledVersion = "" }, []Candidate{artifact("os-1.4", "", "d14")}, -1, []Rule{RuleDowngrade}},
		{"older is allowed", func(d *Device) { d.AllowDowngrade = true }, []Candidate{artifact("os-1.4", "1.4", "d14")}, 0, []Rule{RuleChosen}},
		{"below the floor", func(d *Device) { d.MinVersion, d.AllowDowngrade = "1.4.1", true }, []Candidate{artifact("os-1.4", "1.4", "d14")}, -1, []Rule{RuleDowngrade}},
		{"below the floor on a device that knows nothing", func(d *Device) { *d = Device{MinVersion: "os-1.5"} }, []Candidate{artifact("os-1.4", "1.4", "d14"), artifact("os-1.5", "1.5", "d15")}, 1, []Rule{RuleDowngrade, RuleChosen}},
		{"at the floor", func(d *Device) { d.MinVersion, d.AllowDowngrade = "1.4", true }, []Candidate{artifact("os-1.4", "1.4", "d14")}, 0, []Rule{RuleChosen}},
		{"not comparable with the floor", func(d *Device) { d.MinVersion = "1.4" }, []Candidate{artifact("zebra", "", "dz")}, -1, []Rule{RuleDowngrade}},
		{"a floor that is no version", func(d *Device) { d.MinVersion = "zebra" }, []Candidate{artifact("os-2.0", "2.0", "d20")}, -1, []Rule{RuleDowngrade}},
		{"the floor is that of root file systems", func(d *Device) { d.MinVersion = "3.0" }, []Candidate{module}, 0, []Rule{RuleChosen}},
		{"not comparable is no downgrade", nil, []Candidate{artifact("zebra", "", "dz")}, 0, []Rule{RuleChosen}},
		{"unsigned", nil, []Candidate{unsigned}, -1, []Rule{RuleSigned}},
		{"unsigned is allowed", func(d *Device) { d.AllowUnsigned = true }, []Candidate{unsigned}, 0, []Rule{RuleChosen}},
		{"too large", nil, []Candidate{huge}, -1, []Rule{RuleFits}},
		{"failed before", func(d *Device) { d.FailedAttempts = map[string]int{"d20": 1} }, []Candidate{artifact("os-2.0", "2.0", "d20")}, -1, []Rule{RuleFailed}},
		{"failed once of two", func(d *Device) { d.FailedAttempts = map[string]int{"d20": 1}; d.MaxAttempts = 2 }, []Candidate{artifact("os-2.0", "2.0", "d20")}, 0, []Rule{RuleChosen}},
		{"no number of attempts is one", func(d *Device) { d.FailedAttempts = map[string]int{"d20": 1}; d.MaxAttempts = 0 }, []Candidate{artifact("os-2.0", "2.0", "d20")}, -1, []Rule{RuleFailed}},
		{"failed one does not hide the older good one", func(d *Device) { d.FailedAttempts = map[string]int{"d20": 1} }, []Candidate{artifact("os-2.0", "2.0", "d20"), artifact("os-1.6", "1.6", "d16")}, 1, []Rule{RuleFailed, RuleChosen}},
		{"two of one version", nil, []Candidate{artifact("os-2.0", "2.0", "x"), artifact("os-2.0", "2.0", "y"), artifact("os-1.6", "1.6", "z")}, -1, []Rule{RuleAmbiguous, RuleAmbiguous, RuleNewest}},
		{"two copies", nil, []Candidate{artifact("os-2.0", "2.0", "d20"), renamed}, 0, []Rule{RuleChosen, RuleDuplicate}},
		{"for another device", nil, []Candidate{{File: "x.mender", Err: errors.New("other"), Broken: RuleDevice}}, -1, []Rule{RuleDevice}},
		{"broken beside good", nil, []Candidate{broken, artifact("os-2.0", "2.0", "d20")}, 1, []Rule{RuleReadable, RuleChosen}},
		{"brand-new device", func(d *Device) { *d = Device{} }, []Candidate{artifact("os-0.1", "0.1", "d")}, 0, []Rule{RuleChosen}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := device()
			if tt.device != nil {
				tt.device(&d)
			}
			got := Decide(d, tt.candidates)
			if got.Chosen != tt.chosen {
				t.Errorf("Decide chose %d, want %d", got.Chosen, tt.chosen)
			}
			rules := make([]Rule, len(got.Verdicts))
			for i, v := range got.Verdicts {
				rules[i] = v.Rule
				if v.Reason == "" {
					t.Errorf("verdict %d has no reason", i)
				}
			}
			if diff := cmp.Diff(tt.rules, rules); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	// Each version is higher than the ones before it.
	ascending := []string{"0.9", "v1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2", "1.10.0", "2", "2024.06.01", "20000000000000000"}
	for i, a := range ascending {
		for j, b := range ascending {
			want := 0
			switch {
			case i < j:
				want = -1
			case i > j:
				want = 1
			}
			if got, ok := Compare(a, b); got != want || !ok {
				t.Errorf("Compare(%q, %q) = %d, %v, want %d, true", a, b, got, ok, want)
			}
		}
	}
	for _, b := range []string{"", "release", "1.2.3.4.5", "1..2", "1.0 ", "-1"} {
		if _, ok := Compare("1.0", b); ok {
			t.Errorf("Compare(1.0, %q) claims an order", b)
		}
	}
}

func TestVersionTail(t *testing.T) {
	for name, want := range map[string]string{
		"release-2": "2", "acme-os-v1.4.0-rc1": "v1.4.0-rc1", "factory_2024.06": "2024.06",
		"1.2.3": "1.2.3", "zebra": "zebra", "": "", "board7": "board7",
	} {
		if got := versionTail(name); got != want {
			t.Errorf("versionTail(%q) = %q, want %q", name, got, want)
		}
	}
}

// FuzzRank checks that the order in which candidates compete is an order.
func FuzzRank(f *testing.F) {
	f.Add("1.0", "release-9", "release-10")
	f.Add("", "a1", "a01")
	f.Add("1", "1.0", "1.0+build")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if rank(a, a) != 0 || rank(a, b) != -rank(b, a) {
			t.Fatalf("rank(%q, %q) = %d, reversed %d", a, b, rank(a, b), rank(b, a))
		}
		if rank(a, b) <= 0 && rank(b, c) <= 0 && rank(a, c) > 0 {
			t.Fatalf("rank is not transitive over %q, %q, %q", a, b, c)
		}
	})
}
