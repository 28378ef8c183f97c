package state

import (
	"cmp"
	"maps"
	"slices"
)

// MaxKnown bounds Record.Known. It is not below the number of artifacts that are
// looked at when all that may be plugged in is: 4 disks with 8 partitions with 16
// artifacts each. Otherwise those that are left in could make the device forget
// one another, and begin again.
const MaxKnown = 512

// maxReason bounds Known.Reason, in bytes.
const maxReason = 256

// Known is what the device has been through with an artifact, apart from trials
// that failed (see [Failure]). It is told apart by content, and counted so that an
// artifact on a stick that stays in cannot keep the device busy for ever.
type Known struct {
	Name string `json:"artifact_name"`
	// Starts is how often its installation began since it was committed last.
	// The one that is pending counts.
	Starts int `json:"starts,omitempty"`
	// Broken is how often it broke before that: it is damaged, or its update
	// module refuses it.
	Broken int `json:"broken,omitempty"`
	// Replaced is how often it was committed, and then another one in its place.
	Replaced int    `json:"replaced,omitempty"`
	Reason   string `json:"reason,omitempty"` // of the latest that broke or failed; "" if nobody could tell
	Seq      int    `json:"seq"`              // the higher, the later
}

// Know returns the record with another entry for an artifact: change gets the one
// that is there, and its result becomes the latest. One that counts nothing any
// more is removed. The maps of r stay as they are.
func (r Record) Know(digest string, change func(Known) Known) Record {
	k := change(r.Known[digest])
	for _, other := range r.Known {
		k.Seq = max(k.Seq, other.Seq+1)
	}
	k.Reason = k.Reason[:min(len(k.Reason), maxReason)]
	r.Known = maps.Clone(r.Known)
	switch {
	case k.Starts == 0 && k.Broken == 0 && k.Replaced == 0:
		delete(r.Known, digest)
		return r
	case r.Known == nil:
		r.Known = map[string]Known{}
	}
	r.Known[digest] = k
	return r
}

// latestKnown returns the entries without the oldest ones beyond the limit.
func latestKnown(known map[string]Known) map[string]Known {
	if len(known) <= MaxKnown {
		return known
	}
	newestFirst := slices.SortedFunc(maps.Keys(known), func(a, b string) int {
		return cmp.Or(cmp.Compare(known[b].Seq, known[a].Seq), cmp.Compare(a, b))
	})
	kept := make(map[string]Known, MaxKnown)
	for _, digest := range newestFirst[:MaxKnown] {
		kept[digest] = known[digest]
	}
	return kept
}
