package guard

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/report"
)

// TestCatalog lets journalctl compile the message catalog, and looks for each
// kind of event in what it made of it.
func TestCatalog(t *testing.T) {
	if _, err := exec.LookPath("journalctl"); err != nil {
		t.Skip("needs journalctl")
	}
	dir := t.TempDir()
	catalog := filepath.Join(dir, "usr/lib/systemd/catalog")
	if err := os.MkdirAll(catalog, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "systemd/usb-updater.catalog"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(catalog, "usb-updater.catalog"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "journalctl", "--root="+dir, "--update-catalog").CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Fatalf("journalctl --update-catalog: %v\n%s", err, out)
	}
	list, err := exec.CommandContext(t.Context(), "journalctl", "--root="+dir, "--list-catalog").Output()
	if err != nil {
		t.Fatalf("journalctl --list-catalog: %v", err)
	}
	for _, k := range report.Kinds() {
		if !strings.Contains(string(list), k.MessageID()+" usb-updater: ") {
			t.Errorf("journalctl does not know %s, %s:\n%s", k.MessageID(), k, list)
		}
	}
}

// TestReportingIsDocumented: docs/reporting.md has each kind of event with its
// identifier.
func TestReportingIsDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "docs/reporting.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range report.Kinds() {
		if row := "| `" + string(k) + "` | `" + k.MessageID() + "` |"; !strings.Contains(string(doc), row) {
			t.Errorf("docs/reporting.md lacks %s", row)
		}
	}
}
