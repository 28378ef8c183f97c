package policy

import (
	"cmp"
	"regexp"
	"strings"
)

// semantic matches a version of one to four numbers with an optional
// pre-release and build part (source: Semantic Versioning 2.0.0, widened to
// the one, two and four numbers that vendors use).
var semantic = regexp.MustCompile(`^[vV]?(\d{1,18}(?:\.\d{1,18}){0,3})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$`)

// tail finds a version at the end of an artifact name: "release-2",
// "acme-os-v1.4.0-rc1", "factory_2024.06".
var tail = regexp.MustCompile(`(?:^|[-_ ])([vV]?\d+(?:\.\d+)*(?:-(?:alpha|beta|rc|pre|dev)[0-9A-Za-z.-]*)?(?:\+[0-9A-Za-z.-]+)?)$`)

// versionTail returns the version-like end of an artifact name, or the whole
// name if it has none.
func versionTail(name string) string {
	if m := tail.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return name
}

// Compare orders two versions as Semantic Versioning does: -1, 0 or +1. It
// returns false when one of them is no such version, because then the order
// means nothing that a refusal could rest on.
func Compare(a, b string) (int, bool) {
	ma, mb := semantic.FindStringSubmatch(a), semantic.FindStringSubmatch(b)
	if ma == nil || mb == nil {
		return 0, false
	}
	na, nb := strings.Split(ma[1], "."), strings.Split(mb[1], ".")
	for i := range max(len(na), len(nb)) {
		if c := compareNumbers(at(na, i, "0"), at(nb, i, "0")); c != 0 {
			return c, true
		}
	}
	return comparePreRelease(ma[2], mb[2]), true
}

// comparePreRelease: none is higher than any; else identifier by identifier,
// numbers below words (source: Semantic Versioning 2.0.0, section 11).
func comparePreRelease(a, b string) int {
	if a == b {
		return 0
	}
	if a == "" {
		return 1
	}
	if b == "" {
		return -1
	}
	pa, pb := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(pa), len(pb)) {
		x, y := pa[i], pb[i]
		xn, yn := isNumber(x), isNumber(y)
		c := 0
		switch {
		case xn && yn:
			c = compareNumbers(x, y)
		case xn:
			c = -1
		case yn:
			c = 1
		default:
			c = natural(x, y)
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(pa), len(pb))
}

// rank orders any two labels: by version where both have one, else in natural
// order, in which "release-10" follows "release-9". It is total, so that the
// same stick always gives the same decision.
func rank(a, b string) int {
	c, ok := Compare(a, b)
	if ok {
		return c
	}
	va, vb := semantic.MatchString(a), semantic.MatchString(b)
	if va != vb { // a version beats what is none
		if va {
			return 1
		}
		return -1
	}
	return natural(a, b)
}

// natural compares runs of digits as numbers and all else byte by byte.
func natural(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da != "" && db != "" {
			if c := compareNumbers(da, db); c != 0 {
				return c
			}
			a, b = a[len(da):], b[len(db):]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func digits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

// compareNumbers compares decimal numbers of any length.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if c := cmp.Compare(len(a), len(b)); c != 0 {
		return c
	}
	return cmp.Compare(a, b)
}

func isNumber(s string) bool { return s != "" && digits(s) == s }

func at(s []string, i int, otherwise string) string {
	if i < len(s) {
		return s[i]
	}
	return otherwise
}
