package state

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKnownIsBounded: the latest are kept, and what is kept fits into a store even
// where the reasons are as long as they may be.
func TestKnownIsBounded(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := Record{}
	for i := range MaxKnown + 10 {
		r = r.Know(fmt.Sprintf("%064d", i), func(k Known) Known {
			k.Starts, k.Reason = 1, strings.Repeat("x", 2*maxReason)
			return k
		})
	}
	save(t, s, r)
	got := load(t, s).Known
	if len(got) != MaxKnown || len(r.Known) != MaxKnown+10 {
		t.Errorf("%d are kept of %d, want %d", len(got), len(r.Known), MaxKnown)
	}
	for i := range 10 {
		if _, kept := got[fmt.Sprintf("%064d", i)]; kept {
			t.Errorf("entry %d is kept, which is one of the oldest", i)
		}
	}
}

func TestKnow(t *testing.T) {
	before := Record{Known: map[string]Known{"a": {Name: "one", Starts: 1, Seq: 4}, "b": {Name: "two", Replaced: 1, Seq: 7}}}
	kept := maps.Clone(before.Known)
	after := before.Know("a", func(k Known) Known {
		k.Starts++
		return k
	})
	want := map[string]Known{"a": {Name: "one", Starts: 2, Seq: 8}, "b": {Name: "two", Replaced: 1, Seq: 7}}
	if diff := cmp.Diff(want, after.Known); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(kept, before.Known); diff != "" {
		t.Errorf("the record itself has changed:\n%s", diff)
	}
	if gone := after.Know("a", func(Known) Known { return Known{Name: "one"} }); len(gone.Known) != 1 {
		t.Errorf("an entry that counts nothing stays: %+v", gone.Known)
	}
	if got := (Record{}).Know("a", func(k Known) Known { return k }); got.Known != nil {
		t.Errorf("an empty record has %+v", got.Known)
	}
}

// TestCommitRemembersWhatItReplaces also holds that a release which comes back
// goes on with its count.
func TestCommitRemembersWhatItReplaces(t *testing.T) {
	a := Pending{ArtifactName: "os-a", ManifestDigest: "aa", Provides: map[string]string{"v": "a"}}
	b := Pending{ArtifactName: "os-b", ManifestDigest: "bb", Provides: map[string]string{"v": "b"}}
	r := Record{ArtifactName: "factory", Pending: &a, Attempt: &Attempt{ManifestDigest: "aa"}, Failed: map[string]Failure{"aa": {Attempts: 1}, "cc": {Attempts: 1}}}
	r = r.Know("aa", func(k Known) Known { return Known{Name: "os-a", Starts: 2, Broken: 1, Reason: "it broke"} })
	first := r.Commit(a)
	if first.Installed != "aa" || first.ArtifactName != "os-a" || first.Pending != nil || first.Attempt != nil || len(first.Known) != 0 || len(first.Failed) != 1 {
		t.Errorf("after the first commit: %+v", first)
	}
	if len(r.Failed) != 2 || r.Pending == nil {
		t.Errorf("the record itself has changed: %+v", r)
	}
	again := first.Commit(a)
	if len(again.Known) != 0 {
		t.Errorf("what replaces itself is known as %+v", again.Known)
	}
	first.ArtifactName += InconsistentSuffix
	third := first.Commit(b).Commit(a).Commit(b)
	want := map[string]Known{"aa": {Name: "os-a", Replaced: 2}, "bb": {Name: "os-b", Replaced: 1}}
	for digest, k := range third.Known {
		k.Seq = 0
		third.Known[digest] = k
	}
	if diff := cmp.Diff(want, third.Known); diff != "" || third.Installed != "bb" {
		t.Errorf("installed %q (-want +got):\n%s", third.Installed, diff)
	}
	// An update of another client has no digest.
	unknown := first.Commit(Pending{ArtifactName: "os-c"})
	if unknown.Installed != "" || unknown.Known["aa"].Replaced != 1 || len(unknown.Known) != 1 {
		t.Errorf("after another client's update: %+v", unknown)
	}
}
