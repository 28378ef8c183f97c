package artifact

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// TestIsScriptName compares the rule with the regular expression that it stands
// for, on random words.
func TestIsScriptName(t *testing.T) {
	rule := regexp.MustCompile(
		`^Artifact(Install|Reboot|Commit|Rollback|RollbackReboot|Failure)_(Enter|Leave|Error)_[0-9][0-9](_[A-Za-z0-9_.,+-]+)?$`)
	rng := rand.New(rand.NewPCG(1, 2))
	pieces := []string{
		"Artifact", "ArtifactInstall", "ArtifactRollbackReboot", "Download", "Enter", "Leave", "Error", "00", "7", "99", "_", "_", "_", "x", ".", ",", "+", "-", " ", "\t", "\n", "/", "é", "$",
	}
	good := 0
	for range 300000 {
		var b strings.Builder
		if rng.IntN(2) == 0 {
			b.WriteString("ArtifactCommit_Leave_01")
		}
		for range rng.IntN(8) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		s := b.String()
		want := rule.MatchString(s)
		if got := IsScriptName(s); got != want {
			t.Fatalf("IsScriptName(%q) = %v, want %v", s, got, want)
		}
		if want {
			good++
		}
	}
	if good < 1000 {
		t.Errorf("only %d of the words were names", good)
	}
}
