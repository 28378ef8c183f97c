// Package tier says what becomes of a test on a machine that lacks what it
// needs. It is skipped, and says why; but if the environment variable REQUIRE, a
// list with commas, names the tier that the test belongs to, it fails.
// Continuous integration sets it.
package tier

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Tier is a tier of tests that need more than Go.
type Tier string

// The tiers.
const (
	Device Tier = "device" // real programs, loop devices, root
	VM     Tier = "vm"     // the virtual device
)

// Need ends the test if anything is missing: "root" to be it, an absolute path,
// or a program by its name. A user's PATH may lack the directory of those for
// the administrator, which is searched as well.
func (r Tier) Need(tb testing.TB, things ...string) {
	tb.Helper()
	if missing := slices.DeleteFunc(slices.Clone(things), there); len(missing) > 0 {
		r.Lack(tb, strings.Join(missing, " "))
	}
}

func there(thing string) bool {
	var err error
	switch {
	case thing == "root":
		return os.Geteuid() == 0
	case strings.HasPrefix(thing, "/"):
		_, err = os.Stat(thing)
	default:
		if _, err = exec.LookPath(thing); err != nil {
			_, err = exec.LookPath(filepath.Join("/usr/sbin", thing))
		}
	}
	return err == nil
}

// Lack ends the test, which needs what the machine lacks.
func (r Tier) Lack(tb testing.TB, what string) {
	tb.Helper()
	if slices.Contains(strings.Split(os.Getenv("REQUIRE"), ","), string(r)) {
		tb.Fatalf("%s tests are required and lack %s", r, what)
	}
	tb.Skipf("needs %s", what)
}
