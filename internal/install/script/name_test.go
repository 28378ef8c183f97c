package script

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// TestNames compares the rule for names with the regular expression that it
// stands for, on random words.
func TestNames(t *testing.T) {
	file := regexp.MustCompile(`^([A-Za-z]+)_(Enter|Leave|Error)_[0-9][0-9](_\S+)?$`)
	rng := rand.New(rand.NewPCG(1, 2))
	pieces := []string{
		"Artifact", "ArtifactInstall", "ArtifactRollbackReboot", "Download", "Enter", "Leave", "Error", "00", "7", "99", "_", "_", "_", "x", ".", ",", "+", "-", " ", "\t", "\n", "/", "é", "$",
	}
	good := 0
	for range 300000 {
		var b strings.Builder
		if rng.IntN(2) == 0 {
			b.WriteString([]string{"ArtifactCommit_Leave_01", "Download_Enter_10"}[rng.IntN(2)])
		}
		for range rng.IntN(8) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		s := b.String()
		m := file.FindStringSubmatch(s)
		state, action, _, ok := parseName(s)
		if ok != (m != nil) || ok && (state != m[1] || action != m[2]) {
			t.Fatalf("parseName(%q) = %q, %q, %v, want %q", s, state, action, ok, m)
		}
		if ok {
			good++
		}
	}
	if good < 1000 {
		t.Errorf("only %d of the words were names", good)
	}
}
