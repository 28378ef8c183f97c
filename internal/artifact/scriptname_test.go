package artifact

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestIsScriptName compares the rule with the regular expression that it stands
// for, on random words.
func TestIsScriptName(t *testing.T) {
	rule := regexp.MustCompile(
		`^Artifact(Install|Reboot|Commit|Rollback|RollbackReboot|Failure)_(Enter|Leave|Error)_[0-9][0-9](_[\pL\pM\pN\pP\pS]+)?$`)
	rng := rand.New(rand.NewPCG(1, 2))
	pieces := []string{
		"Artifact", "ArtifactInstall", "ArtifactRollbackReboot", "Download", "Enter", "Leave", "Error", "00", "7", "99", "_", "_", "_", "x", ".", ",", "+", "-", " ", "\t", "\n", "/", "é", "$",
		"~", "(", "@", ":", "=", "#", "\\", "\x00", "\x7f", "\u0085", "\u00a0", "\u200b", "\u202e", "\u2028", "\ufffd", "\xe4", "\xc3",
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
		want := rule.MatchString(s) && utf8.ValidString(s) && !strings.Contains(s, "/")
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

// TestScriptNameLength: a script's name is no longer than any other.
func TestScriptNameLength(t *testing.T) {
	name := "ArtifactInstall_Enter_00_"
	name += strings.Repeat("x", maxNameSize-len(name))
	if !IsScriptName(name) || IsScriptName(name+"x") {
		t.Errorf("IsScriptName = %v, %v for %d bytes and for one more", IsScriptName(name), IsScriptName(name+"x"), len(name))
	}
}
