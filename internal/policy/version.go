package policy

import (
	"cmp"
	"strings"
)

// version is a version of one to four numbers with an optional pre-release and
// build part (source: Semantic Versioning 2.0.0, widened to the one, two and
// four numbers that vendors use).
type version struct {
	numbers    []string
	preRelease string
}

// maxNumbers and maxDigits bound what counts as a version.
const maxNumbers, maxDigits = 4, 18

// parseVersion reads "v1.2.3-rc.1+build". The v may be missing.
func parseVersion(s string) (version, bool) {
	if s != "" && (s[0] == 'v' || s[0] == 'V') {
		s = s[1:]
	}
	s, build, hasBuild := strings.Cut(s, "+")
	s, pre, hasPre := strings.Cut(s, "-")
	v := version{strings.Split(s, "."), pre}
	if len(v.numbers) > maxNumbers || hasBuild && !isLabel(build) || hasPre && !isLabel(pre) {
		return version{}, false
	}
	for _, n := range v.numbers {
		if !isNumber(n) || len(n) > maxDigits {
			return version{}, false
		}
	}
	return v, true
}

// isLabel reports whether s can be a pre-release or build part.
func isLabel(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-") == ""
}

// versionTail returns the version-like end of an artifact name, or the whole
// name if it has none: "2" of "release-2", "v1.4.0-rc1" of
// "acme-os-v1.4.0-rc1", "2024.06" of "factory_2024.06".
func versionTail(name string) string {
	for i := range len(name) {
		if (i == 0 || strings.IndexByte("-_ ", name[i-1]) >= 0) && isTail(name[i:]) {
			return name[i:]
		}
	}
	return name
}

// isTail reports whether s reads like a version. What follows a dash must say
// that it is a pre-release: "2" of "3-2" is one, "3-2" is not.
func isTail(s string) bool {
	if s != "" && (s[0] == 'v' || s[0] == 'V') {
		s = s[1:]
	}
	s, build, hasBuild := strings.Cut(s, "+")
	s, pre, hasPre := strings.Cut(s, "-")
	if hasBuild && !isLabel(build) || hasPre && !isPreRelease(pre) {
		return false
	}
	for n := range strings.SplitSeq(s, ".") {
		if !isNumber(n) {
			return false
		}
	}
	return true
}

func isPreRelease(s string) bool {
	for _, word := range []string{"alpha", "beta", "rc", "pre", "dev"} {
		if strings.HasPrefix(s, word) {
			return isLabel(s)
		}
	}
	return false
}

// IsVersion tells whether s, or the end of a name as of an artifact, is a version
// that [Compare] can order.
func IsVersion(s string) bool {
	_, ok := parseVersion(versionTail(s))
	return ok
}

// Compare orders two versions as Semantic Versioning does: -1, 0 or +1. It
// returns false when one of them is no such version, because then the order
// means nothing that a refusal could rest on.
func Compare(a, b string) (int, bool) {
	va, okA := parseVersion(a)
	vb, okB := parseVersion(b)
	if !okA || !okB {
		return 0, false
	}
	na, nb := va.numbers, vb.numbers
	for i := range max(len(na), len(nb)) {
		if c := compareNumbers(at(na, i, "0"), at(nb, i, "0")); c != 0 {
			return c, true
		}
	}
	return comparePreRelease(va.preRelease, vb.preRelease), true
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
	_, va := parseVersion(a)
	_, vb := parseVersion(b)
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
