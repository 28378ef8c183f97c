package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Device is what the decision needs to know of the device. Digests are
// lower-case hexadecimal.
type Device struct {
	InstalledName     string           // artifact name of the running slot
	InstalledVersion  string           // version of the running slot, "" if unknown
	InstalledDigest   string           // manifest digest of the running artifact, "" if unknown
	InstalledChecksum string           // payload checksum of the running slot, "" if unknown
	FailedAttempts    map[string]int   // manifest digest to trials that failed
	Known             map[string]Known // by manifest digest
	MaxAttempts       int              // trials before an artifact is refused
	// PluggedIn: a person has plugged the stick in while the device was running,
	// and this is the first look at it.
	PluggedIn      bool
	AllowUnsigned  bool
	AllowDowngrade bool
	MinVersion     string // lowest version of a root file system, "" for none
	SlotSize       int64  // bytes
}

// Known is what the device has been through with an artifact, apart from trials
// that failed.
type Known struct {
	Starts   int    // installations that began since it was committed last
	Broken   int    // tries that ended before that
	Replaced int    // times that another artifact was committed in its place
	Reason   string // of the latest that broke or failed, "" if unknown
}

// Candidate is one artifact found on a stick.
type Candidate struct {
	File     string // name on the stick, for people
	Err      error  // why it cannot be read, or is not for this device; nil if it is
	Broken   Rule   // that Err tells of: RuleReadable, which "" is, RuleDevice or RuleSigned
	Name     string // artifact name
	Version  string // "" if the artifact does not say
	Digest   string // of the manifest: the artifact's identity
	Checksum string // of the payload
	Size     int64  // of the payload, bytes
	Verified bool   // signed by a key of the device
	// Module: it is for an update module, or has no payload. It does not go into
	// a slot, and Replaces is the version of what it replaces, "" if unknown.
	Module   bool
	Replaces string
}

// Rule names the rule that decided about a candidate.
type Rule string

// The rules, in the order in which they are applied.
const (
	RuleReadable  Rule = "readable"  // it is an artifact, and whole as far as it was read
	RuleDevice    Rule = "device"    // it is for this device
	RuleSigned    Rule = "signed"    // signed by a key of the device
	RuleFits      Rule = "fits"      // not larger than the slot
	RuleInstalled Rule = "installed" // not what runs already
	RuleFailed    Rule = "failed"    // did not fail its trial on this device
	RuleDowngrade Rule = "downgrade" // not older than what runs
	RuleReplaced  Rule = "replaced"  // not what another artifact has replaced here
	RuleNewest    Rule = "newest"    // the highest version of those left
	RuleAmbiguous Rule = "ambiguous" // the only one of the highest version
	RuleDuplicate Rule = "duplicate" // the first of equal copies
	RuleChosen    Rule = "chosen"    // it is the one
)

// Verdict is the decision about one candidate.
type Verdict struct {
	Rule   Rule
	Reason string // a sentence for people
}

// Decision is the outcome. Verdicts has one entry for each candidate, in the
// same order.
type Decision struct {
	Chosen   int // index of the candidate to install, -1 for none
	Verdicts []Verdict
}

// Decide picks at most one candidate. Each one that can be installed competes;
// the highest version wins. Two different artifacts of the same highest
// version are both refused, because nothing tells which one is meant.
func Decide(d Device, candidates []Candidate) Decision {
	dec := Decision{Chosen: -1, Verdicts: make([]Verdict, len(candidates))}
	var left []int
	for i, c := range candidates {
		v, ok := judge(d, c)
		dec.Verdicts[i] = v
		if ok {
			left = append(left, i)
		}
	}
	left = dec.dropDuplicates(candidates, left)
	if len(left) == 0 {
		return dec
	}
	best := slices.MaxFunc(left, func(a, b int) int {
		return rank(candidates[a].label(), candidates[b].label())
	})
	// What runs competes, too, as does what ran: an older artifact beside it is no
	// update, or the two would take turns for ever.
	for i, v := range dec.Verdicts {
		if v.Rule != RuleInstalled && v.Rule != RuleReplaced || rank(candidates[best].label(), candidates[i].label()) > 0 {
			continue
		}
		was := "is"
		if v.Rule == RuleReplaced {
			was = "was"
		}
		for _, j := range left {
			dec.Verdicts[j] = Verdict{RuleNewest, fmt.Sprintf("not newer than %s, which %s installed", candidates[i].title(), was)}
		}
		return dec
	}
	var winners []int
	for _, i := range left {
		if rank(candidates[i].label(), candidates[best].label()) == 0 {
			winners = append(winners, i)
			continue
		}
		dec.Verdicts[i] = Verdict{RuleNewest, fmt.Sprintf("older than %s", candidates[best].title())}
	}
	if len(winners) > 1 {
		for _, i := range winners {
			dec.Verdicts[i] = Verdict{RuleAmbiguous, fmt.Sprintf(
				"%d different artifacts have the version %q: leave only one on the stick", len(winners), candidates[i].label())}
		}
		return dec
	}
	dec.Chosen = best
	dec.Verdicts[best] = Verdict{RuleChosen, chosenReason(d, candidates[best])}
	return dec
}

// maxTries is how often one artifact is tried that never comes to a verdict. A
// power cut in the wrong moment, or a bad read, deserves another try; a script
// that reboots the device each time does not.
const maxTries = 3

// maxReplaced is how often one artifact may be replaced by another and still come
// back unattended. It ends what looks like a person who plugs sticks in again and
// again, and is a bad contact.
const maxReplaced = 3

// judge applies the rules that look at one candidate alone.
func judge(d Device, c Candidate) (Verdict, bool) {
	known := d.Known[c.Digest]
	switch {
	case c.Err != nil:
		return Verdict{cmp.Or(c.Broken, RuleReadable), c.Err.Error()}, false
	case !c.Verified && !d.AllowUnsigned:
		return Verdict{RuleSigned, "not signed by a key of this device, and AllowUnsigned is not set"}, false
	case d.SlotSize > 0 && !c.Module && c.Size > d.SlotSize:
		return Verdict{RuleFits, fmt.Sprintf("the image has %d bytes, the partition %d", c.Size, d.SlotSize)}, false
	case d.InstalledDigest != "" && c.Digest == d.InstalledDigest && c.Name == d.installedName(),
		c.Checksum != "" && c.Checksum == d.InstalledChecksum &&
			// An update module may have given the system another name since.
			(c.Name == d.installedName() || c.Version != "" && c.Version == d.InstalledVersion):
		return Verdict{RuleInstalled, "is what the device runs already"}, false
	case d.FailedAttempts[c.Digest] >= max(d.MaxAttempts, 1):
		return Verdict{RuleFailed, fmt.Sprintf("failed %d time(s) on this device", d.FailedAttempts[c.Digest])}, false
	case known.Starts >= max(d.MaxAttempts, maxTries):
		return Verdict{RuleFailed, fmt.Sprintf("was started %d times on this device and never came to a verdict%s", known.Starts, because(known.Reason))}, false
	case known.Broken >= maxTries && !d.PluggedIn:
		return Verdict{RuleFailed, fmt.Sprintf("could not be installed in %d tries%s", known.Broken, because(known.Reason))}, false
	}
	if d.MinVersion != "" && !c.Module {
		order, ok := Compare(c.label(), versionTail(d.MinVersion))
		switch {
		case !ok:
			return Verdict{RuleDowngrade, fmt.Sprintf("version %q cannot be compared with MinVersion %q", c.label(), d.MinVersion)}, false
		case order < 0:
			return Verdict{RuleDowngrade, fmt.Sprintf("version %q is below MinVersion %q", c.label(), d.MinVersion)}, false
		}
	}
	installed := d.installedLabel()
	if c.Module {
		installed = versionTail(c.Replaces)
	}
	order, ordered := Compare(c.label(), installed)
	if ordered && order < 0 && !d.AllowDowngrade {
		return Verdict{RuleDowngrade, fmt.Sprintf("version %q is older than the installed %q, and AllowDowngrade is not set",
			c.label(), installed)}, false
	}
	return d.judgeReturn(known.Replaced, ordered && order > 0)
}

// judgeReturn decides about what was replaced here, that many times. It may come
// back if it is newer than what runs now, or if a person asks for it; but not for
// ever. So an artifact is installed for the first time, or its version is higher
// than that of what runs, or a count goes up that has an end: whatever is plugged in
// and stays so, the installs come to an end.
func (d Device) judgeReturn(replaced int, newer bool) (Verdict, bool) {
	switch {
	case replaced > maxReplaced:
		return Verdict{RuleReplaced, fmt.Sprintf("was replaced %d times on this device: install it by hand", replaced)}, false
	case replaced > 0 && !newer && !d.PluggedIn:
		return Verdict{RuleReplaced, fmt.Sprintf(
			"was replaced on this device and is not newer than %q: to have it back, pull the stick out and plug it in again", d.installedName())}, false
	}
	return Verdict{}, true
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// dropDuplicates keeps the first of equal copies.
func (dec *Decision) dropDuplicates(candidates []Candidate, left []int) []int {
	first := map[string]int{}
	return slices.DeleteFunc(left, func(i int) bool {
		j, seen := first[candidates[i].Digest]
		if seen {
			dec.Verdicts[i] = Verdict{RuleDuplicate, fmt.Sprintf("the same artifact as %q", candidates[j].File)}
			return true
		}
		first[candidates[i].Digest] = i
		return false
	})
}

func chosenReason(d Device, c Candidate) string {
	from := d.InstalledName
	if from == "" {
		from = "an unknown release"
	}
	return fmt.Sprintf("updates the device from %s", from)
}

// label is what versions are compared by: the version that the artifact
// provides, else the version-like end of its name.
func (c Candidate) label() string { return versionTail(cmp.Or(c.Version, c.Name)) }

func (c Candidate) title() string { return fmt.Sprintf("%q in %q", c.Name, c.File) }

func (d Device) installedLabel() string {
	return versionTail(cmp.Or(d.InstalledVersion, d.installedName()))
}

// installedName is the artifact's name without the mark that a failed script
// leaves on it (source: Mender documentation, "state scripts").
func (d Device) installedName() string { return strings.TrimSuffix(d.InstalledName, "_INCONSISTENT") }
