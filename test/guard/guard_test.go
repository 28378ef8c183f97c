// Package guard holds promises about the whole repository that no single
// package can keep: what is linked, what is documented, what the licenses are.
package guard

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/config"
	"github.com/usb-updater/usb-updater/internal/report"
)

const (
	module = "github.com/usb-updater/usb-updater"
	root   = "../.."
)

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Fields(string(out))
}

func TestAgentHasNoNetworkCode(t *testing.T) {
	deps := goList(t, "-deps", "./cmd/usb-updater")
	for _, banned := range []string{"net/http", "crypto/tls", module + "/internal/httpsource"} {
		if slices.Contains(deps, banned) {
			t.Errorf("usb-updater links %s", banned)
		}
	}
}

// TestNetworkStaysInMender: of all packages that are linked, only cmd/mender
// and its source of downloads know the network.
func TestNetworkStaysInMender(t *testing.T) {
	const command, source = module + "/cmd/mender", module + "/internal/httpsource"
	packages := goList(t, "-f", "{{.ImportPath}}{{range .Imports}},{{.}}{{end}}", "./cmd/...", "./internal/...")
	for imported, want := range map[string][]string{
		"net/http":   {command, source},
		"crypto/tls": {source},
		source:       {command},
	} {
		var got []string
		for _, p := range packages {
			if names := strings.Split(p, ","); slices.Contains(names[1:], imported) {
				got = append(got, names[0])
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("importers of %s (-want +got):\n%s", imported, diff)
		}
	}
}

func TestGPLStaysInTheAgent(t *testing.T) {
	const gpl = "github.com/pilebones/go-udev"
	linked := func(args ...string) bool {
		return slices.ContainsFunc(goList(t, args...), func(p string) bool { return strings.HasPrefix(p, gpl) })
	}
	if !linked("-deps", "./cmd/usb-updater") {
		t.Error("usb-updater does not link go-udev: this guard watches the wrong thing")
	}
	if linked("-deps", "./cmd/mender") {
		t.Error("mender links go-udev, which is GPL-3.0")
	}
	if linked("-deps", "-tags", "nogpl", "./cmd/usb-updater") {
		t.Error("the tag nogpl does not keep go-udev out")
	}
}

// TestLinkedModules makes a new dependency a decision.
func TestLinkedModules(t *testing.T) {
	allowed := []string{
		"github.com/coreos/go-systemd/v22", "github.com/godbus/dbus/v5", "github.com/klauspost/compress", "github.com/mattn/go-colorable",
		"github.com/mattn/go-isatty", "github.com/pilebones/go-udev", "github.com/rs/zerolog",
		"golang.org/x/sys", module,
	}
	licenses, err := os.ReadFile(filepath.Join(root, "LICENSES.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range goList(t, "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/...") {
		if !slices.Contains(allowed, m) {
			t.Errorf("module %s is linked and not in the list of allowed ones", m)
		}
		if m != module && !strings.Contains(string(licenses), filepath.Base(m)) {
			t.Errorf("module %s is not in LICENSES.md", m)
		}
	}
}

func TestEveryPackageIsDocumented(t *testing.T) {
	for _, dir := range goList(t, "-f", "{{.Dir}}", "./...") {
		documented := false
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || f.Doc != nil
		}
		if !documented {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func TestFilesAreReadable(t *testing.T) {
	const maxLines = 500
	for _, dir := range goList(t, "-f", "{{.Dir}}", "./cmd/...", "./internal/...") {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(b), "\n"); n > maxLines && !strings.HasSuffix(name, "_test.go") {
				t.Errorf("%s has %d lines, more than %d", name, n, maxLines)
			}
		}
	}
}

// TestResultCodesAreDocumented keeps the table in docs equal to the program's.
func TestResultCodesAreDocumented(t *testing.T) {
	var want strings.Builder
	want.WriteString("| number | name | meaning | what to do | blinks |\n|--:|---|---|---|---|\n")
	for _, c := range report.Codes() {
		blinks := "steady"
		if b := c.Blink(); !c.Quiet() {
			blinks = fmt.Sprintf("%d-%d", b[0], b[1])
		}
		fmt.Fprintf(&want, "| %d | `%s` | %s | %s | %s |\n", c.Number, c.Name, c.Meaning, c.Remedy, blinks)
	}
	path := filepath.Join(root, "docs/result-codes.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), want.String()) {
		t.Errorf("%s differs from the program; it should hold:\n%s", path, want.String())
	}
}

// TestExampleConfiguration keeps the example equal to the defaults, and every
// key documented.
func TestExampleConfiguration(t *testing.T) {
	got, err := config.LoadAgent(filepath.Join(root, "docs/usb-updater.conf.example"), true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.DefaultAgent(), got); diff != "" {
		t.Errorf("the example differs from the defaults (-default +example):\n%s", diff)
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, settings := range []any{config.Agent{}, config.Mender{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(settings)) {
			if !strings.Contains(string(doc), "`"+f.Name+"`") {
				t.Errorf("docs/configuration.md lacks the key %s", f.Name)
			}
		}
	}
}

// TestDefensesAreTested: the table of defenses names tests that exist, and each
// defense has one or says that it is open.
func TestDefensesAreTested(t *testing.T) {
	testName := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	defense := regexp.MustCompile(`^\| (D\d+) \|(.*)$`)
	quotedTest := regexp.MustCompile("`(Test\\w+)`")
	doc, err := os.ReadFile(filepath.Join(root, "docs/security.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, dir := range []string{"cmd", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			for _, m := range testName.FindAllStringSubmatch(string(b), -1) {
				tests[m[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := map[string]bool{}
	rows := map[string]bool{}
	for line := range strings.Lines(string(doc)) {
		row := defense.FindStringSubmatch(strings.TrimSpace(line))
		if row == nil {
			continue
		}
		rows[row[1]] = true
		names := quotedTest.FindAllStringSubmatch(row[2], -1)
		if len(names) == 0 && !strings.Contains(row[2], "| open |") {
			t.Errorf("defense %s names no test and is not open", row[1])
		}
		for _, name := range names {
			named[name[1]] = true
			if !tests[name[1]] {
				t.Errorf("defense %s names %s, which does not exist", row[1], name[1])
			}
		}
	}
	const last = 16
	for i := 1; i <= last; i++ {
		if d := fmt.Sprintf("D%d", i); !rows[d] {
			t.Errorf("docs/security.md has no row for defense %s", d)
		}
	}
	for name := range tests {
		if strings.HasPrefix(name, "TestDefense") && name != t.Name() && !named[name] {
			t.Errorf("%s is in no row of docs/security.md", name)
		}
	}
}
