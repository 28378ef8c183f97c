package policy

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// The grammars as regular expressions, which are shorter but cost the program
// more than they are worth.
var (
	semantic = regexp.MustCompile(`^[vV]?(\d{1,18}(?:\.\d{1,18}){0,3})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$`)
	tail     = regexp.MustCompile(`(?:^|[-_ ])([vV]?\d+(?:\.\d+)*(?:-(?:alpha|beta|rc|pre|dev)[0-9A-Za-z.-]*)?(?:\+[0-9A-Za-z.-]+)?)$`)
)

// TestGrammars compares the parsers with the expressions on random words.
func TestGrammars(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"1", "23", "0", ".", "-", "+", "_", " ", "v", "V", "rc", "rc1", "alpha", "beta.2", "dev", "pre", "x", "release", "\n", "é", strings.Repeat("9", 18), strings.Repeat("9", 19)}
	good := 0
	for range 200000 {
		var b strings.Builder
		for range 1 + rng.IntN(9) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		s := b.String()
		m := semantic.FindStringSubmatch(s)
		v, ok := parseVersion(s)
		if ok != (m != nil) || ok && (strings.Join(v.numbers, ".") != m[1] || v.preRelease != m[2]) {
			t.Fatalf("parseVersion(%q) = %q, %v, want %q", s, v, ok, m)
		}
		want := s
		if m := tail.FindStringSubmatch(s); m != nil {
			want = m[1]
		}
		if got := versionTail(s); got != want {
			t.Fatalf("versionTail(%q) = %q, want %q", s, got, want)
		}
		if ok {
			good++
		}
	}
	if good < 1000 {
		t.Errorf("only %d of the words were versions", good)
	}
}
