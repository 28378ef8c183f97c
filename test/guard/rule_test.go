package guard

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const rule = "udev/90-usb-updater.rules"

// TestUdevRule holds what the rule promises, and has udev check its grammar
// where it can.
func TestUdevRule(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, rule))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		`ACTION!="add|change", GOTO="usb_updater_end"`,
		`SUBSYSTEM!="block", GOTO="usb_updater_end"`,
		`ENV{USB_UPDATER_IGNORE}=="1", GOTO="usb_updater_end"`,
		`ENV{ID_FS_USAGE}!="filesystem", GOTO="usb_updater_end"`,
		`SUBSYSTEMS=="usb", TAG+="systemd", ENV{SYSTEMD_WANTS}+="usb-updater@%k.service"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %s", rule, want)
		}
	}
	if last := lines[len(lines)-1]; last != `LABEL="usb_updater_end"` {
		t.Errorf("%s ends with %s, not with the label that every GOTO names", rule, last)
	}
	// Nothing that a stick says becomes part of a name, and no program runs:
	// udev kills it after its time limit, and its mounts are nobody's.
	for _, banned := range []string{"RUN", "PROGRAM", "IMPORT", "$", "%E", "%c", "%s", "SYMLINK", "NAME="} {
		if strings.Contains(text, banned) {
			t.Errorf("%s uses %s", rule, banned)
		}
	}
	if got := regexp.MustCompile(`%.`).FindAllString(text, -1); len(got) != 1 || got[0] != "%k" {
		t.Errorf("%s substitutes %q, want only %%k", rule, got)
	}
	if exec.CommandContext(t.Context(), "udevadm", "verify", "--help").Run() != nil {
		t.Log("udevadm verify is not here: the grammar was not checked")
		return
	}
	if out, err := exec.CommandContext(t.Context(), "udevadm", "verify", filepath.Join(root, rule)).CombinedOutput(); err != nil {
		t.Errorf("udevadm verify: %v\n%s", err, out)
	}
}

// TestStickUnit: what the unit of a stick is ordered after and bound to.
func TestStickUnit(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "systemd/usb-updater@.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"BindsTo=dev-%i.device",                         // a pulled stick ends the run
		"ConditionPathExists=!/run/usb-updater/inhibit", // the owner says no
		"ExecStart=/usr/bin/usb-updater run %I",
		"TimeoutStartSec=infinity", // the queue and the gates have limits of their own
		"RuntimeDirectory=usb-updater",
		"RuntimeDirectoryPreserve=yes", // the locks outlive a run
	} {
		if !strings.Contains("\n"+string(b), "\n"+want+"\n") {
			t.Errorf("the unit lacks %s", want)
		}
	}
	// A stick that is there at boot waits for the verdict about the last update.
	for line := range strings.Lines(string(b)) {
		if after, ok := strings.CutPrefix(line, "After="); ok {
			for _, want := range []string{"dev-%i.device", "local-fs.target", "usb-updater-boot.service"} {
				if !strings.Contains(after, want) {
					t.Errorf("the unit is not ordered after %s", want)
				}
			}
			return
		}
	}
	t.Error("the unit has no After=")
}
